use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn deployment(replicas: i32, image: &str) -> Deployment {
    serde_json::from_value(json!({
        "metadata": { "namespace": "default", "name": "web", "uid": "d", "generation": 1 },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
            "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": image }] } },
        },
    }))
    .unwrap()
}

/// The server and the ReplicaSet controller in small: applies a plan, and pods that were asked for come up
/// when `ready`.
struct World {
    d: Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    clock: i64,
}

impl World {
    fn new(d: Deployment) -> Self {
        Self {
            d,
            sets: Vec::new(),
            clock: 0,
        }
    }

    fn plan(&self) -> Plan {
        plan(&self.d, &self.sets, |_| false, now())
    }

    fn step(&mut self, ready: bool) -> Plan {
        let p = self.plan();
        self.clock += 1;
        if let Some(mut rs) = p.create.clone() {
            rs.metadata.uid = rs.metadata.name.clone();
            rs.metadata.creation_timestamp =
                Some(Time(Timestamp::from_second(self.clock).unwrap()));
            self.sets.push(Arc::new(rs));
        }
        for changed in &p.update {
            let at = self
                .sets
                .iter()
                .position(|s| s.metadata.uid == changed.metadata.uid)
                .unwrap();
            self.sets[at] = Arc::new(changed.clone());
        }
        self.sets
            .retain(|s| !p.delete.iter().any(|x| x.metadata.uid == s.metadata.uid));
        if let Some(revision) = p.revision {
            self.d
                .metadata
                .annotations
                .get_or_insert_default()
                .insert(revision::REVISION.into(), revision.to_string());
        }
        self.d.status = Some(p.status.clone());
        for set in &mut self.sets {
            let mut rs = set.as_ref().clone();
            let n = rolling::replicas(&rs);
            let status = rs.status.get_or_insert_default();
            let up = if ready {
                n
            } else {
                status.available_replicas.unwrap_or(0).min(n)
            };
            status.replicas = n;
            status.ready_replicas = Some(up);
            status.available_replicas = Some(up);
            *set = Arc::new(rs);
        }
        p
    }

    fn settle(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        for _ in 0..50 {
            said.extend(self.step(true).scaled);
        }
        let p = self.plan();
        assert!(
            p.create.is_none() && p.update.is_empty() && p.delete.is_empty(),
            "{p:?}"
        );
        assert_eq!(Some(p.status), self.d.status, "the status is settled too");
        said
    }

    fn set_image(&mut self, image: &str) {
        let spec = self.d.spec.get_or_insert_default();
        spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
        self.d.metadata.generation = self.d.metadata.generation.map(|g| g + 1);
    }

    fn sizes(&self) -> Vec<(i64, i32)> {
        let mut sizes: Vec<_> = self
            .sets
            .iter()
            .map(|s| (revision::revision(&s.metadata), rolling::replicas(s)))
            .collect();
        sizes.sort();
        sizes
    }

    fn progressing(&self) -> (String, String, String) {
        let c = conditions::get(self.d.status.as_ref().unwrap(), conditions::PROGRESSING)
            .unwrap()
            .clone();
        (c.status, c.reason.unwrap(), c.message.unwrap())
    }
}

#[test]
fn a_new_deployment_makes_its_replica_set_and_completes() {
    let mut w = World::new(deployment(3, "a"));
    let said = w.settle();
    assert_eq!(w.sizes(), [(1, 3)]);
    let name = w.sets[0].metadata.name.clone().unwrap();
    assert_eq!(said, [format!("Scaled up replica set {name} from 0 to 3")]);
    let (status, reason, message) = w.progressing();
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("True", "NewReplicaSetAvailable")
    );
    assert_eq!(
        message,
        format!("ReplicaSet \"{name}\" has successfully progressed.")
    );
    let status = w.d.status.as_ref().unwrap();
    assert_eq!(status.available_replicas, Some(3));
    assert_eq!(conditions::get(status, "Available").unwrap().status, "True");
}

#[test]
fn an_update_rolls_and_an_undo_reuses_the_old_set_under_a_new_revision() {
    let mut w = World::new(deployment(4, "a"));
    w.settle();
    w.set_image("b");
    w.settle();
    assert_eq!(w.sizes(), [(1, 0), (2, 4)]);
    w.set_image("a");
    w.settle();
    assert_eq!(w.sizes(), [(2, 0), (3, 4)]);
    assert_eq!(revision::revision(&w.d.metadata), 3);
}

#[test]
fn scaling_touches_only_the_active_set() {
    let mut w = World::new(deployment(2, "a"));
    w.settle();
    w.set_image("b");
    w.settle();
    w.d.spec.as_mut().unwrap().replicas = Some(5);
    let said = w.settle();
    assert_eq!(w.sizes(), [(1, 0), (2, 5)]);
    assert_eq!(said.len(), 1);
    w.d.spec.as_mut().unwrap().replicas = Some(0);
    w.settle();
    assert_eq!(w.sizes(), [(1, 0), (2, 0)]);
    w.d.spec.as_mut().unwrap().replicas = Some(1);
    w.settle();
    assert_eq!(w.sizes(), [(1, 0), (2, 1)]);
}

#[test]
fn a_paused_deployment_is_scaled_but_not_rolled() {
    let mut w = World::new(deployment(2, "a"));
    w.settle();
    w.d.spec.as_mut().unwrap().paused = Some(true);
    w.set_image("b");
    w.d.spec.as_mut().unwrap().replicas = Some(4);
    w.settle();
    assert_eq!(w.sizes(), [(1, 4)]);
    assert_eq!(w.progressing().1, "DeploymentPaused");
    w.d.spec.as_mut().unwrap().paused = Some(false);
    w.settle();
    assert_eq!(w.sizes(), [(1, 0), (2, 4)]);
    assert_eq!(w.progressing().1, "NewReplicaSetAvailable");
}

#[test]
fn history_is_kept_to_its_limit() {
    let mut w = World::new(deployment(1, "a"));
    for image in ["a", "b", "c", "d", "e"] {
        w.set_image(image);
        w.settle();
    }
    assert_eq!(w.sizes(), [(3, 0), (4, 0), (5, 1)]);
}

#[test]
fn recreate_waits_for_the_old_pods() {
    let mut d = deployment(2, "a");
    d.spec.as_mut().unwrap().strategy =
        serde_json::from_value(json!({ "type": "Recreate" })).unwrap();
    let mut w = World::new(d);
    w.settle();
    w.set_image("b");
    w.step(true);
    assert_eq!(w.sizes(), [(1, 0)]);
    assert!(
        plan(&w.d, &w.sets, |_| true, now()).create.is_none(),
        "old pods are still there"
    );
    w.settle();
    assert_eq!(w.sizes(), [(1, 0), (2, 2)]);
}

#[test]
fn without_progress_the_deadline_strikes() {
    let mut w = World::new(deployment(2, "a"));
    w.step(false);
    w.step(false);
    assert_eq!(w.progressing().1, "ReplicaSetUpdated");
    assert!(w.plan().due.is_some_and(|s| s > 0 && s <= 601));
    let late = "2026-01-01T01:10:05Z".parse().unwrap();
    let p = plan(&w.d, &w.sets, |_| false, late);
    let c = conditions::get(&p.status, conditions::PROGRESSING).unwrap();
    assert_eq!(
        (c.status.as_str(), c.reason.as_deref()),
        ("False", Some("ProgressDeadlineExceeded"))
    );
    assert_eq!(
        conditions::get(&p.status, "Available").unwrap().status,
        "False"
    );
}

#[test]
fn a_deployment_that_is_being_deleted_is_left_alone() {
    let mut w = World::new(deployment(2, "a"));
    w.settle();
    let mut d: Value = serde_json::to_value(&w.d).unwrap();
    d["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    d["spec"]["replicas"] = json!(9);
    w.d = serde_json::from_value(d).unwrap();
    let p = w.plan();
    assert!(p.create.is_none() && p.update.is_empty() && p.delete.is_empty());
}
