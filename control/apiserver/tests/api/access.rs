//! Who may what, over the wire.

use serde_json::json;

use crate::client::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn strangers_learn_nothing() {
    let cluster = Cluster::start().await;
    let nobody = cluster.anonymous();
    for path in ["/healthz", "/livez", "/readyz", "/readyz?verbose"] {
        assert_eq!(nobody.get(path).await.status.as_u16(), 200, "{path}");
    }
    for path in [
        "/api",
        "/api/v1/pods",
        "/apis/apps/v1",
        "/api/v1/namespaces/default/secrets/x",
        "/version",
        "/metrics",
        "/readyz/ping",
    ] {
        nobody.get(path).await.refused(401, "Unauthorized");
    }
    cluster
        .with_token("nonsense")
        .get("/version")
        .await
        .refused(401, "Unauthorized");

    let jane = cluster.client("jane", &["dev"]);
    assert_eq!(jane.get("/api/v1").await.ok(200)["kind"], "APIResourceList");
    let message = jane
        .get("/api/v1/namespaces/default/pods")
        .await
        .refused(403, "Forbidden");
    assert_eq!(
        message,
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let message = jane.get("/api/v1/nodes").await.refused(403, "Forbidden");
    assert_eq!(
        message,
        "nodes is forbidden: User \"jane\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"
    );
    // What isn't served is not told apart from what is not allowed.
    jane.get("/apis/gadgets.example.com/v1/jobs")
        .await
        .refused(403, "Forbidden");
    cluster
        .admin()
        .get("/apis/gadgets.example.com/v1/jobs")
        .await
        .refused(404, "NotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_with_what_it_is_bound_to() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    for name in ["default", "other"] {
        admin
            .post(accounts, &json!({"metadata": {"name": name}}))
            .await
            .ok(201);
    }
    let pods = "/api/v1/namespaces/default/pods";
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pod = admin.post(pods, &pod).await.ok(201);
    admin
        .post(
            &format!("{pods}/p/binding"),
            &json!({"target": {"kind": "Node", "name": "n1"}}),
        )
        .await
        .ok(201);
    let path = format!("{accounts}/default/token");
    let request = |bound: bool| {
        let mut spec = json!({"audiences": [], "expirationSeconds": 600});
        if bound {
            spec["boundObjectRef"] = json!({"apiVersion": "v1", "kind": "Pod", "name": "p",
                                           "uid": pod["metadata"]["uid"]});
        }
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
    };
    let token_of =
        |answer: serde_json::Value| answer["status"]["token"].as_str().unwrap().to_string();
    let free = token_of(admin.post(&path, &request(false)).await.ok(201));
    let bound = token_of(admin.post(&path, &request(true)).await.ok(201));
    for token in [&free, &bound] {
        let client = cluster.with_token(token);
        client.get("/api/v1").await.ok(200);
        let message = client.get(pods).await.refused(403, "Forbidden");
        assert!(
            message.contains("\"system:serviceaccount:default:default\""),
            "{message}"
        );
    }
    // For somebody else's API.
    let mut foreign = request(false);
    foreign["spec"]["audiences"] = json!(["vault"]);
    let foreign = token_of(admin.post(&path, &foreign).await.ok(201));
    cluster
        .with_token(&foreign)
        .get("/api")
        .await
        .refused(401, "Unauthorized");

    // Kubelets: tokens of their own pods only.
    let kubelet = cluster.client("system:node:n1", &["system:nodes"]);
    kubelet.post(&path, &request(true)).await.ok(201);
    kubelet
        .post(&path, &request(false))
        .await
        .refused(403, "Forbidden");
    let stranger = cluster.client("system:node:n2", &["system:nodes"]);
    stranger
        .post(&path, &request(true))
        .await
        .refused(403, "Forbidden");
    kubelet
        .post(&format!("{accounts}/other/token"), &request(true))
        .await
        .refused(403, "Forbidden");
    admin
        .post(&format!("{accounts}/other/token"), &request(true))
        .await
        .refused(400, "BadRequest");
    let mut short = request(false);
    short["spec"]["expirationSeconds"] = 5.into();
    admin.post(&path, &short).await.refused(422, "Invalid");

    admin
        .delete(
            &format!("{pods}/p"),
            Some(&json!({"gracePeriodSeconds": 0})),
        )
        .await
        .ok(200);
    admin
        .get(&format!("{pods}/p"))
        .await
        .refused(404, "NotFound");
    cluster
        .with_token(&bound)
        .get("/api")
        .await
        .refused(401, "Unauthorized");
    cluster.with_token(&free).get("/api").await.ok(200);
    admin
        .delete(&format!("{accounts}/default"), None)
        .await
        .ok(200);
    admin
        .get(&format!("{accounts}/default"))
        .await
        .refused(404, "NotFound");
    cluster
        .with_token(&free)
        .get("/api")
        .await
        .refused(401, "Unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubelets_and_agents_keep_to_their_node() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let kubelet = cluster.client("system:node:n1", &["system:nodes"]);
    kubelet
        .post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}}))
        .await
        .ok(201);
    kubelet
        .post("/api/v1/nodes", &json!({"metadata": {"name": "n2"}}))
        .await
        .refused(403, "Forbidden");
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    kubelet
        .post(leases, &json!({"metadata": {"name": "n1"}}))
        .await
        .ok(201);
    kubelet
        .post(leases, &json!({"metadata": {"name": "n2"}}))
        .await
        .refused(403, "Forbidden");

    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    admin
        .post(accounts, &json!({"metadata": {"name": "default"}}))
        .await
        .ok(201);
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "s"}}]}]}});
    admin.post(pods, &pod).await.ok(201);
    for name in ["s", "t"] {
        let secret = json!({"metadata": {"name": name}});
        admin
            .post("/api/v1/namespaces/default/secrets", &secret)
            .await
            .ok(201);
    }
    let secret = "/api/v1/namespaces/default/secrets/s";
    kubelet.get(secret).await.refused(403, "Forbidden");
    admin
        .post(
            &format!("{pods}/p/binding"),
            &json!({"target": {"kind": "Node", "name": "n1"}}),
        )
        .await
        .ok(201);
    // The rule follows the cache: wait for it as a read of now does.
    admin.get(&format!("{pods}/p")).await.ok(200);
    kubelet.get(secret).await.ok(200);
    kubelet
        .get("/api/v1/namespaces/default/secrets/t")
        .await
        .refused(403, "Forbidden");
    let list = kubelet
        .get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1")
        .await
        .ok(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    kubelet.get("/api/v1/pods").await.refused(403, "Forbidden");

    let agent = cluster.client("system:rhumb-agent:n1", &["system:rhumb-agents"]);
    let note = json!({"metadata": {"annotations": {"rhumb.io/x": "y"}}});
    agent
        .patch(&format!("{pods}/p"), "merge", &note)
        .await
        .ok(200);
    // By the status too, as on a cluster that lets it write nothing else of a pod.
    let more = json!({"metadata": {"annotations": {"rhumb.io/z": "y"}}});
    let noted = agent
        .patch(&format!("{pods}/p/status"), "merge", &more)
        .await
        .ok(200);
    assert_eq!(
        noted["metadata"]["annotations"],
        json!({"rhumb.io/x": "y", "rhumb.io/z": "y"})
    );
    let label = json!({"metadata": {"labels": {"x": "y"}}});
    let phase = json!({"status": {"phase": "Failed"}});
    for (path, change) in [("", &label), ("/status", &label), ("/status", &phase)] {
        agent
            .patch(&format!("{pods}/p{path}"), "merge", change)
            .await
            .refused(403, "Forbidden");
    }
    // A kubelet may not label by it, and nobody gives a pod another owner.
    kubelet
        .patch(&format!("{pods}/p/status"), "merge", &label)
        .await
        .refused(403, "Forbidden");
    let owner = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "o", "uid": "u"}]}});
    let kept = admin
        .patch(&format!("{pods}/p/status"), "merge", &owner)
        .await
        .ok(200);
    assert_eq!(kept["metadata"].get("ownerReferences"), None);
    // What the kubelet may not give its node, the agent may not either.
    let own = json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}});
    for client in [&kubelet, &agent] {
        client
            .patch("/api/v1/nodes/n1", "merge", &own)
            .await
            .refused(403, "Forbidden");
    }
    // Another node's kubelet is refused before any budget is charged.
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {}}});
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    admin.post(budgets, &budget).await.ok(201);
    let stranger = cluster.client("system:node:n2", &["system:nodes"]);
    let eviction = json!({"metadata": {"name": "p"}});
    let message = stranger
        .post(&format!("{pods}/p/eviction"), &eviction)
        .await
        .refused(403, "Forbidden");
    assert!(message.contains("can only evict pods"), "{message}");
    let other = cluster.client("system:rhumb-agent:n2", &["system:rhumb-agents"]);
    other
        .patch(&format!("{pods}/p"), "merge", &note)
        .await
        .refused(403, "Forbidden");
    other.get("/api/v1/secrets").await.refused(403, "Forbidden");
}
