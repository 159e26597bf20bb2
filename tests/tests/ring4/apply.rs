//! Stock kubectl applies from the server's side, and asks what would change.

use std::process::Output;

use anyhow::ensure;

use crate::support::Suite;

fn config(name: &str, data: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{set: x}}}}\ndata: {{{data}}}\n"
    )
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

pub fn server_side(suite: &Suite) -> anyhow::Result<()> {
    let space = suite.space("server-side")?;
    let fed = |arguments: &[&str], manifest: &str, code: i32, word: &str| -> anyhow::Result<()> {
        let output = space.kubectl_stdin(&[arguments, &["-f", "-"]].concat(), manifest)?;
        let shown = text(&output);
        ensure!(
            output.status.code() == Some(code) && shown.contains(word),
            "kubectl {arguments:?}: {:?}, no `{word}` in:\n{shown}",
            output.status
        );
        Ok(())
    };
    let data = |name: &str| space.kubectl(&["get", "configmap", name, "-o", "jsonpath={.data}"]);
    let apply = ["apply", "--server-side"];
    let first = config("conf", r#"a: "1", b: "2""#);
    fed(&apply, &first, 0, "configmap/conf serverside-applied")?;
    // Somebody else takes a field: a conflict, until force.
    let patch = r#"{"data":{"a":"9"}}"#;
    let other = [
        "patch",
        "configmap",
        "conf",
        "-p",
        patch,
        "--field-manager=other",
    ];
    space.kubectl(&other)?;
    let conflict = "Apply failed with 1 conflict: conflict with \"other\" using v1: .data.a";
    fed(&apply, &first, 1, conflict)?;
    let force = ["apply", "--server-side", "--force-conflicts"];
    fed(&force, &first, 0, "serverside-applied")?;
    ensure!(data("conf")?.contains(r#""a":"1""#), "force took the field");
    // What is asked for by `diff` is what `apply` does: a field that nobody applies any more goes.
    let second = config("conf", r#"a: "1", c: "3""#);
    fed(&["diff", "--server-side"], &second, 1, "+  c: \"3\"")?;
    fed(&apply, &second, 0, "serverside-applied")?;
    fed(&["diff", "--server-side"], &second, 0, "")?;
    ensure!(data("conf")? == r#"{"a":"1","c":"3"}"#, "{}", data("conf")?);
    let shown = space.kubectl(&["get", "configmap", "conf", "-o", "yaml"])?;
    ensure!(!shown.contains("managedFields"), "{shown}");
    let all = [
        "get",
        "configmap",
        "conf",
        "-o",
        "yaml",
        "--show-managed-fields",
    ];
    let shown = space.kubectl(&all)?;
    ensure!(
        shown.contains("f:c: {}") && shown.contains("operation: Apply"),
        "{shown}"
    );

    // From the client's side, and over to the server's.
    let client = config("client", r#"x: "1""#);
    fed(&["apply"], &client, 0, "created")?;
    fed(&["diff"], &client, 0, "")?;
    let changed = config("client", r#"x: "2""#);
    fed(&["diff"], &changed, 1, "+  x: \"2\"")?;
    fed(&apply, &changed, 0, "serverside-applied")?;
    fed(&["apply"], &changed, 0, "configmap/client")?;
    fed(&["replace"], &changed, 0, "replaced")?;
    fed(&["replace", "--force"], &changed, 0, "replaced")?;

    // Pruning by label; the namespace's own maps have none.
    let prune = [
        "apply",
        "--prune",
        "-l",
        "set=x",
        "--prune-allowlist=core/v1/ConfigMap",
    ];
    let two = format!("{}---\n{}", config("p1", ""), config("p2", ""));
    fed(&["apply"], &two, 0, "configmap/p2 created")?;
    fed(&prune, &config("p1", ""), 0, "configmap/p2 pruned")?;
    ensure!(data("p2").is_err(), "p2 is pruned");
    // Dry runs leave everything as it is.
    let before = space.kubectl(&["get", "configmaps", "-o", "yaml"])?;
    fed(
        &["apply", "--server-side", "--dry-run=server"],
        &two,
        0,
        "dry run",
    )?;
    fed(
        &["delete", "--dry-run=server"],
        &config("p1", ""),
        0,
        "dry run",
    )?;
    let all = ["delete", "configmaps", "--all", "--dry-run=server"];
    space.kubectl(&all)?;
    let after = space.kubectl(&["get", "configmaps", "-o", "yaml"])?;
    ensure!(
        before == after,
        "a dry run changed something:\n{before}\n{after}"
    );
    Ok(())
}
