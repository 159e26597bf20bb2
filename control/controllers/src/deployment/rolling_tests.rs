use k8s_openapi::{
    api::apps::v1::{DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
    apimachinery::pkg::util::intstr::IntOrString,
};
use proptest::prelude::*;

use super::*;

fn deployment(replicas: i32, surge: IntOrString, unavailable: IntOrString) -> Deployment {
    Deployment {
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(surge),
                    max_unavailable: Some(unavailable),
                }),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn percents(replicas: i32, surge: &str, unavailable: &str) -> Deployment {
    deployment(
        replicas,
        IntOrString::String(surge.into()),
        IntOrString::String(unavailable.into()),
    )
}

#[test]
fn surge_rounds_up_and_unavailable_down() {
    assert_eq!(surge_and_unavailable(&percents(10, "25%", "25%")), (3, 2));
    assert_eq!(surge_and_unavailable(&percents(1, "25%", "25%")), (1, 0));
    assert_eq!(
        surge_and_unavailable(&percents(3, "0%", "10%")),
        (0, 1),
        "both zero would never move"
    );
    assert_eq!(max_unavailable(&percents(2, "0%", "500%")), 2);
}

#[test]
fn the_documented_example_of_ten() {
    // 10 replicas, surge 3, unavailable 2: first 3 new, then 2 old go, and so on.
    let d = percents(10, "30%", "20%");
    assert_eq!(new_size(&d, 10, 0), 3);
    assert_eq!(old_sizes(&d, &[(10, 10)], Some((3, 0))), [8]);
    assert_eq!(new_size(&d, 11, 3), 5);
    assert_eq!(old_sizes(&d, &[(8, 8)], Some((5, 5))), [3]);
    assert_eq!(new_size(&d, 8, 5), 10);
    assert_eq!(old_sizes(&d, &[(3, 3)], Some((10, 10))), [0]);
}

#[test]
fn what_is_broken_goes_first() {
    let d = percents(10, "0%", "20%");
    // The newer of the old ones has never become available.
    assert_eq!(old_sizes(&d, &[(8, 8), (2, 0)], Some((0, 0))), [8, 0]);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_keeps_shares() {
    // Kubernetes' documented example: 15 wanted, surge 3; 8 old and 5 new of 10 + 3.
    let d = deployment(15, IntOrString::Int(3), IntOrString::Int(2));
    assert_eq!(proportional(&d, &[(8, Some(13)), (5, Some(13))]), [11, 7]);
    let none = deployment(0, IntOrString::Int(3), IntOrString::Int(2));
    assert_eq!(proportional(&none, &[(8, Some(13)), (5, Some(13))]), [0, 0]);
}

proptest! {
    /// Step by step, with pods that become available at random: never more than wanted + surge, never
    /// fewer available than wanted − unavailable, and it ends with only new ones.
    #[test]
    fn a_rollout_keeps_its_bounds_and_ends(
        wanted in 1..30i32, surge in 0..10i32, unavailable in 0..10i32, ready in proptest::collection::vec(0..4i32, 200),
    ) {
        let d = deployment(wanted, IntOrString::Int(surge), IntOrString::Int(unavailable));
        let (surge, _) = surge_and_unavailable(&d);
        let floor = wanted - max_unavailable(&d);
        let (mut old, mut new, mut new_ready) = (wanted, 0, 0);
        for step in ready.into_iter().chain(std::iter::repeat_n(4, 200)) {
            let target = new_size(&d, old + new, new);
            if target != new {
                new = target;
            } else {
                old = old_sizes(&d, &[(old, old)], Some((new, new_ready)))[0];
            }
            prop_assert!(old + new <= wanted + surge);
            prop_assert!(old + new_ready >= floor);
            new_ready = (new_ready + step).min(new);
        }
        prop_assert_eq!((old, new), (0, wanted));
    }

    #[test]
    fn proportional_scaling_adds_up(wanted in 0..50i32, surge in 0..10i32, sizes in proptest::collection::vec(1..20i32, 1..5)) {
        let d = deployment(wanted, IntOrString::Int(surge), IntOrString::Int(1));
        let before: i32 = sizes.iter().sum();
        let mut sets: Vec<_> = sizes.iter().map(|s| (*s, Some(before))).collect();
        sets.sort_by(|a, b| b.cmp(a));
        let out = proportional(&d, &sets);
        let allowed = if wanted > 0 { wanted + surge } else { 0 };
        prop_assert_eq!(out.iter().sum::<i32>(), allowed);
        prop_assert!(out.iter().all(|n| *n >= 0));
    }
}
