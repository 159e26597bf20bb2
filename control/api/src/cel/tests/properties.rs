//! Whatever is written: no panic, and no more work than the budget allows.

use proptest::prelude::*;

use super::*;

/// What functions are called, on something or not.
fn names() -> Vec<String> {
    functions::every_name()
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("x".to_string()),
        Just("x.list".to_string()),
        Just("x.text".to_string()),
        Just("x.map".to_string()),
        Just("i".to_string()),
        Just("null".to_string()),
        Just("true".to_string()),
        Just("-9223372036854775808".to_string()),
        Just("18446744073709551615u".to_string()),
        Just("0.0".to_string()),
        Just("1e308".to_string()),
        Just("b'\\xff'".to_string()),
        Just("''".to_string()),
        Just("'héß'".to_string()),
        Just("'%.9f%s%d%e%x'".to_string()),
        Just("'10.0.0.0/8'".to_string()),
        Just("'2009-02-13T23:31:30Z'".to_string()),
        Just("'1.2.3-rc.1+b'".to_string()),
        Just("'9999999h'".to_string()),
        (-3_i64..20).prop_map(|n| n.to_string()),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let name = proptest::sample::select(names());
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            (
                name,
                inner.clone(),
                proptest::collection::vec(inner.clone(), 0..3)
            )
                .prop_map(|(name, target, args)| {
                    let args: Vec<String> = args.iter().map(|a| format!("dyn({a})")).collect();
                    match name.strip_prefix('.') {
                        Some(name) => format!("dyn({target}).{name}({})", args.join(", ")),
                        None if args.is_empty() => format!("{name}(dyn({target}))"),
                        None => format!("{name}({})", args.join(", ")),
                    }
                }),
            (
                two.clone(),
                proptest::sample::select(vec![
                    "+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "in"
                ])
            )
                .prop_map(|((a, b), sign)| format!("(dyn({a}) {sign} dyn({b}))")),
            (
                two.clone(),
                proptest::sample::select(vec![
                    "all",
                    "exists",
                    "exists_one",
                    "map",
                    "filter",
                    "sortBy"
                ])
            )
                .prop_map(|((a, b), name)| format!("dyn({a}).{name}(i, dyn({b}))")),
            (
                two.clone(),
                proptest::sample::select(vec![
                    "all",
                    "existsOne",
                    "transformList",
                    "transformMap",
                    "transformMapEntry"
                ])
            )
                .prop_map(|((a, b), name)| format!("dyn({a}).{name}(k, i, dyn({b}))")),
            two.clone().prop_map(|(a, b)| format!("dyn({a})[dyn({b})]")),
            two.clone()
                .prop_map(|(a, b)| format!("dyn({a})[?dyn({b})]")),
            two.clone()
                .prop_map(|(a, b)| format!("[dyn({a}), ?optional.of({b})]")),
            two.prop_map(|(a, b)| format!("{{dyn({a}): dyn({b})}}")),
            inner.prop_map(|a| format!("dyn({a}).?text")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn neither_panics_nor_exceeds(source in expression(), units in 1_u64..20_000) {
        let variables = [("x", Type::Dyn), ("i", Type::Dyn)];
        if let Ok(program) = Program::compile(&source, &variables) {
            let x = dynamic(&serde_json::json!({"list": [3, 1, "b", null, [2.5]],
                "text": "a,b,c", "map": {"a": {"b": 1}}}));
            let values = BTreeMap::from([("x", x), ("i", Value::Int(1))]);
            let mut budget = Budget::new(units);
            let began = std::time::Instant::now();
            let result = program.evaluate(&values, &mut budget);
            prop_assert!(began.elapsed().as_secs() < 5);
            if result.is_ok() {
                prop_assert!(!budget.is_spent());
            }
        }
    }

    #[test]
    fn anything_may_be_written(source in "[-+*/%.?:,!&|<>=(){}a-z0-9'\"\\\\\\[\\] ]{0,40}") {
        let _ = Program::compile(&source, &[("a", Type::Dyn)]);
    }
}
