use k8s_openapi::api::core::v1::Pod;

use super::*;

fn pod(name: &str, priority: i32, created: i64) -> Arc<PodInfo> {
    let mut pod = Pod::default();
    pod.metadata.namespace = Some("default".into());
    pod.metadata.name = Some(name.into());
    pod.metadata.uid = Some(format!("uid-{name}"));
    let mut info = PodInfo::of(&pod);
    info.priority = priority;
    info.created = created;
    Arc::new(info)
}

fn name(pod: Option<Arc<PodInfo>>) -> Option<String> {
    pod.map(|p| p.key.name.clone())
}

#[test]
fn priority_then_age() {
    let now = Instant::now();
    let mut q = Queue::default();
    q.put(pod("young", 0, 20));
    q.put(pod("old", 0, 10));
    q.put(pod("urgent", 5, 30));
    let order: Vec<_> = std::iter::from_fn(|| name(q.take(now))).collect();
    assert_eq!(order, ["urgent", "old", "young"]);
}

#[test]
fn an_unschedulable_pod_waits_for_a_change_and_its_back_off() {
    let t0 = Instant::now();
    let mut q = Queue::default();
    q.put(pod("a", 0, 1));
    let a = q.take(t0).unwrap();
    q.unschedulable(&a.key, t0);
    assert!(
        q.take(t0 + Duration::from_secs(30)).is_none(),
        "nothing has changed"
    );
    q.cluster_changed(t0 + Duration::from_millis(500));
    assert!(
        q.take(t0 + Duration::from_millis(900)).is_none(),
        "in back-off for a second"
    );
    assert_eq!(q.next_due(), Some(t0 + Duration::from_secs(1)));
    assert_eq!(
        name(q.take(t0 + Duration::from_secs(1))).as_deref(),
        Some("a")
    );
    q.unschedulable(&a.key, t0);
    q.cluster_changed(t0);
    assert_eq!(
        q.next_due(),
        Some(t0 + Duration::from_secs(2)),
        "the second time is longer"
    );
}

#[test]
fn a_change_while_out_for_a_decision_is_not_lost() {
    let t0 = Instant::now();
    let mut q = Queue::default();
    q.put(pod("a", 0, 1));
    let a = q.take(t0).unwrap();
    q.cluster_changed(t0);
    q.unschedulable(&a.key, t0);
    assert_eq!(
        name(q.take(t0 + Duration::from_secs(1))).as_deref(),
        Some("a")
    );
}

#[test]
fn our_own_status_update_does_not_wake_a_pod_and_a_change_of_spec_does() {
    let t0 = Instant::now();
    let mut q = Queue::default();
    q.put(pod("a", 0, 1));
    let a = q.take(t0).unwrap();
    q.unschedulable(&a.key, t0);
    let mut noted = (*a).clone();
    noted.unschedulable_message = Some("0/1 nodes".into());
    q.put(Arc::new(noted.clone()));
    assert!(q.take(t0 + Duration::from_secs(2)).is_none());
    noted.node_selector.insert("zone".into(), "a".into());
    q.put(Arc::new(noted));
    assert_eq!(
        name(q.take(t0 + Duration::from_secs(2))).as_deref(),
        Some("a")
    );
}

#[test]
fn back_off_ends_at_ten_seconds_and_set_aside_after_five_minutes() {
    assert_eq!(backoff(1), Duration::from_secs(1));
    assert_eq!(backoff(3), Duration::from_secs(4));
    assert_eq!(backoff(40), Duration::from_secs(10));
    let t0 = Instant::now();
    let mut q = Queue::default();
    q.put(pod("a", 0, 1));
    let a = q.take(t0).unwrap();
    q.unschedulable(&a.key, t0);
    assert!(q.take(t0 + LONGEST_ASIDE).is_some());
}

#[test]
fn removal_leaves_nothing_behind() {
    let t0 = Instant::now();
    let mut q = Queue::default();
    for state in 0..4 {
        q.put(pod("a", 0, 1));
        if state > 0 {
            let a = q.take(t0).unwrap();
            match state {
                1 => {}
                2 => q.unschedulable(&a.key, t0),
                _ => q.retry(&a.key, t0),
            }
        }
        q.remove(&pod("a", 0, 1).key);
        assert!(
            q.entries.is_empty() && q.ready.is_empty() && q.timed.is_empty() && q.aside.is_empty(),
            "state {state}"
        );
    }
}

#[test]
fn a_recreated_pod_starts_anew() {
    let t0 = Instant::now();
    let mut q = Queue::default();
    q.put(pod("a", 0, 1));
    let a = q.take(t0).unwrap();
    q.unschedulable(&a.key, t0);
    let mut again = (*a).clone();
    again.uid = "other".into();
    q.put(Arc::new(again));
    assert_eq!(q.take(t0).unwrap().uid, "other");
}
