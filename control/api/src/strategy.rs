//! What a write does to an object before it is stored: system fields, status, generation,
//! validation, deletion. Pure: the caller brings clock, uid and random suffix.
//! Source: apiserver `pkg/registry/rest/{create,update,delete}.go` and the kinds' strategies.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::crd::names;
use crate::json::{self, at, list, put, remove, text};
use crate::registry::{Kind, StatusRule};
use crate::status::{ApiError, Errors, Result};
use crate::validation::metadata;
use crate::{crd, node_restriction, per_kind, time};

/// What the caller brings to a create.
#[derive(Clone, Debug)]
pub struct CreateContext<'a> {
    /// The request's namespace; `None` for cluster-scoped kinds.
    pub namespace: Option<&'a str>,
    pub now: Timestamp,
    /// A fresh UUID.
    pub uid: &'a str,
    /// Five characters for `generateName`, from `name_suffix`.
    pub suffix: &'a str,
}

const DEFINITION: (&str, &str) = ("apiextensions.k8s.io", "CustomResourceDefinition");

/// The characters of generated names: no vowels, so that no words come out.
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The five characters after `generateName`, from random bits.
pub fn name_suffix(mut random: u64) -> String {
    let base = SUFFIX.len() as u64;
    (0..5)
        .map(|_| {
            let c = SUFFIX[(random % base) as usize] as char;
            random /= base;
            c
        })
        .collect()
}

/// Checks apiVersion, kind, name and namespace of a decoded object against the request, and fills
/// in what the client left out, but for the name. `name` is that of the URL (update), if it has one.
pub fn conform(
    kind: &Kind,
    object: &mut Value,
    namespace: Option<&str>,
    name: Option<&str>,
) -> Result<()> {
    let api_version = kind.api_version();
    let given = text(object, "apiVersion").to_string();
    if !given.is_empty() && given != api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({api_version})"
        )));
    }
    let given = text(object, "kind").to_string();
    if !given.is_empty() && given != kind.kind {
        return Err(ApiError::bad_request(format!(
            "the kind in the data ({given}) does not match the expected kind ({})",
            kind.kind
        )));
    }
    if !object.is_object() {
        return Err(ApiError::bad_request("the object is not a JSON object"));
    }
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.kind.as_ref().into();
    let Some(meta) = json::child(object, "metadata") else {
        return Err(ApiError::bad_request("metadata is not a JSON object"));
    };
    if let Some(name) = name {
        let given = text(meta, "name");
        if given.is_empty() {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name} based on URL) was undeterminable: name must be provided"
            )));
        } else if given != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
    } else {
        // A creation's: nobody manages what isn't taken.
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
            json::remove(meta, field);
        }
    }
    match namespace {
        Some(namespace) => {
            let given = text(meta, "namespace");
            if given.is_empty() {
                meta["namespace"] = namespace.into();
            } else if given != namespace {
                return Err(ApiError::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
        }
        None => {
            let given = text(meta, "namespace");
            if !given.is_empty() {
                return Err(ApiError::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            remove(meta, "namespace");
        }
    }
    Ok(())
}

/// Makes a decoded, defaulted and admitted object of the stored form ready to be stored as new.
pub fn prepare_create(kind: &Kind, object: &mut Value, ctx: &CreateContext<'_>) -> Result<()> {
    conform(kind, object, ctx.namespace, None)?;
    if !text(object, "metadata.resourceVersion").is_empty() {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let meta = &mut object["metadata"];
    for field in [
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generation",
    ] {
        remove(meta, field);
    }
    generate_name(meta, ctx.suffix);
    meta["uid"] = ctx.uid.into();
    meta["creationTimestamp"] = time::format(ctx.now).into();
    if kind.generation {
        meta["generation"] = 1.into();
    }
    if kind.status == StatusRule::Subresource {
        remove(object, "status");
    }
    if kind.is("", "Namespace") {
        object["status"] = json!({"phase": "Active"});
        let has = list(object, "spec.finalizers")
            .iter()
            .any(|f| f == "kubernetes");
        if !has && let Some(spec) = json::child(object, "spec") {
            json::default(spec, "finalizers", json!([]));
            if let Some(finalizers) = json::list_mut(spec, "finalizers") {
                finalizers.push("kubernetes".into());
            }
        }
    }
    if kind.id() == DEFINITION {
        object["status"] = names::initial(object);
    }
    per_kind::create(kind, object);
    canonical_order(object);
    let mut errors = Errors::default();
    metadata::validate(kind, object, &mut errors);
    kind.validate(object, &mut errors);
    if kind.is("", "Pod") {
        crate::validation::pod::pod_create(object, &mut errors);
    }
    errors.into_result(kind, text(object, "metadata.name"))
}

/// What a new object is called in refusals, before a name has been made for it.
pub fn called(object: &Value) -> &str {
    let names = ["metadata.name", "metadata.generateName"];
    let given = names.iter().map(|path| text(object, path));
    given
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or("Unknown")
}

/// Writes `name` from `generateName` if there is no name.
fn generate_name(meta: &mut Value, suffix: &str) {
    let base = text(meta, "generateName");
    if text(meta, "name").is_empty() && !base.is_empty() {
        // 63 characters in all, as Kubernetes keeps them.
        let base: String = base.chars().take(58).collect();
        meta["name"] = format!("{base}{suffix}").into();
    }
}

/// apiVersion, kind and metadata first, status last: what users see in `-o yaml`.
fn canonical_order(object: &mut Value) {
    if let Some(fields) = object.as_object_mut() {
        let mut ordered = Map::new();
        for key in ["apiVersion", "kind", "metadata"] {
            if let Some(value) = fields.shift_remove(key) {
                ordered.insert(key.to_string(), value);
            }
        }
        let status = fields.shift_remove("status");
        ordered.append(fields);
        if let Some(status) = status {
            ordered.insert("status".to_string(), status);
        }
        *fields = ordered;
    }
}

/// What an update leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// Store the new object, if it differs from the old.
    Store,
    /// The last finalizer of a deleted object has gone: remove it.
    Remove,
}

/// Makes `new` (decoded, defaulted, in stored form) ready to replace `old`.
/// `metadata.resourceVersion` of `old` must be the current one.
pub fn prepare_update(kind: &Kind, new: &mut Value, old: &Value) -> Result<UpdateOutcome> {
    keep_system_fields(kind, new, old)?;
    if kind.status != StatusRule::None {
        put(new, "status", old.get("status").cloned());
    }
    match kind.id() {
        // The phase and the spec's finalizers have a subresource each.
        ("", "Namespace") => put(new, "spec", old.get("spec").cloned()),
        ("", "Service") => crate::service::patch_allocated(new, old),
        // What was asked for stays.
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            put(new, "spec", old.get("spec").cloned());
        }
        DEFINITION => crd::definition::note_storage_version(new),
        _ => {}
    }
    per_kind::update(kind, new, old);
    canonical_order(new);
    bump_generation(kind, new, old);
    let name = text(new, "metadata.name").to_string();
    let mut errors = Errors::default();
    metadata::validate_update(kind, new, old, &mut errors);
    kind.validate_update(new, old, &mut errors);
    errors.into_result(kind, &name)?;
    Ok(outcome(kind, new))
}

/// Makes `new` ready for a write of the status subresource: only its status counts, and of pods and nodes,
/// whose kubelets and networks note things there, the metadata.
pub fn prepare_status_update(kind: &Kind, new: &mut Value, old: &Value) -> Result<UpdateOutcome> {
    check_version(kind, new, old)?;
    let noted = kind.is("", "Pod") || kind.is("", "Node");
    if noted {
        keep_system_fields(kind, new, old)?;
        if let Some(metadata) = json::child(new, "metadata").filter(|_| kind.is("", "Pod")) {
            let owners = at(old, "metadata.ownerReferences").cloned();
            put(metadata, "ownerReferences", owners);
        }
    }
    let status = new.get("status").cloned();
    let mut merged = old.clone();
    put(&mut merged, "status", status);
    match noted {
        true => put(&mut merged, "metadata", new.get("metadata").cloned()),
        false => take_managed(&mut merged, new),
    }
    if kind.is("", "Pod") {
        // Set at creation, and never changed.
        if let Some(status) = json::child(&mut merged, "status") {
            let qos = at(old, "status.qosClass").cloned();
            if qos.is_some() {
                put(status, "qosClass", qos);
            }
        }
    }
    *new = merged;
    canonical_order(new);
    let mut errors = Errors::default();
    if noted {
        metadata::validate_update(kind, new, old, &mut errors);
    }
    if kind.as_custom().is_some() || kind.id() == DEFINITION {
        kind.validate_update(new, old, &mut errors);
    }
    crate::validation::status(kind, new, old, &mut errors);
    errors.into_result(kind, text(new, "metadata.name"))?;
    Ok(outcome(kind, new))
}

/// `certificatesigningrequests/approval`: only the conditions count.
pub fn prepare_approval(
    kind: &Kind,
    new: &mut Value,
    old: &Value,
    now: Timestamp,
) -> Result<UpdateOutcome> {
    check_version(kind, new, old)?;
    let mut conditions = list(new, "status.conditions").to_vec();
    for condition in &mut conditions {
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            json::default(condition, field, time::format(now));
        }
    }
    let mut merged = old.clone();
    if let Some(status) = json::child(&mut merged, "status") {
        let conditions = (!conditions.is_empty()).then_some(Value::Array(conditions));
        put(status, "conditions", conditions);
    }
    take_managed(&mut merged, new);
    *new = merged;
    canonical_order(new);
    let mut errors = Errors::default();
    crate::validation::certificates::approval_update(new, old, &mut errors);
    errors.into_result(kind, text(new, "metadata.name"))?;
    Ok(outcome(kind, new))
}

/// `pods/ephemeralcontainers`: only those count, and they only grow.
pub fn prepare_ephemeral(kind: &Kind, new: &mut Value, old: &Value) -> Result<UpdateOutcome> {
    check_version(kind, new, old)?;
    let name = text(old, "metadata.name");
    let annotations = json::map(old, "metadata.annotations");
    if annotations.is_some_and(|a| a.contains_key(node_restriction::MIRROR)) {
        let mut errors = Errors::default();
        errors.forbidden("", "static pods do not support ephemeral containers");
        return errors
            .into_result(kind, name)
            .map(|()| UpdateOutcome::Store);
    }
    let containers = at(new, "spec.ephemeralContainers").cloned();
    let mut merged = old.clone();
    if let Some(spec) = json::child(&mut merged, "spec") {
        put(spec, "ephemeralContainers", containers);
    }
    take_managed(&mut merged, new);
    *new = merged;
    canonical_order(new);
    bump_generation(kind, new, old);
    let mut errors = Errors::default();
    kind.validate(new, &mut errors);
    crate::validation::pod::ephemeral_containers_update(new, old, &mut errors);
    errors.into_result(kind, name)?;
    Ok(outcome(kind, new))
}

/// What tracking made of `metadata.managedFields` (`apply::Writer`), whatever else counts.
fn take_managed(merged: &mut Value, new: &Value) {
    let managed = at(new, "metadata.managedFields").cloned();
    if let Some(metadata) = json::child(merged, "metadata") {
        put(metadata, "managedFields", managed);
    }
}

/// `namespaces/finalize`: only `spec.finalizers` counts.
pub fn prepare_finalize(kind: &Kind, new: &mut Value, old: &Value) -> Result<UpdateOutcome> {
    check_version(kind, new, old)?;
    let finalizers = at(new, "spec.finalizers").cloned();
    let mut merged = old.clone();
    if let Some(spec) = json::child(&mut merged, "spec") {
        put(spec, "finalizers", finalizers);
    }
    take_managed(&mut merged, new);
    *new = merged;
    Ok(outcome(kind, new))
}

fn outcome(kind: &Kind, new: &Value) -> UpdateOutcome {
    let deleting = at(new, "metadata.deletionTimestamp").is_some();
    let grace = json::int(new, "metadata.deletionGracePeriodSeconds").unwrap_or(0);
    let held = !list(new, "metadata.finalizers").is_empty()
        || (kind.is("", "Namespace") && !list(new, "spec.finalizers").is_empty());
    if deleting && grace == 0 && !held {
        UpdateOutcome::Remove
    } else {
        UpdateOutcome::Store
    }
}

/// The client's resourceVersion and uid, if it sent them, must be the current ones.
fn check_version(kind: &Kind, new: &Value, old: &Value) -> Result<()> {
    let name = text(old, "metadata.name");
    let version = text(new, "metadata.resourceVersion");
    if !version.is_empty() && version != "0" && version != text(old, "metadata.resourceVersion") {
        return Err(ApiError::modified(kind, name));
    }
    let (uid, current) = (text(new, "metadata.uid"), text(old, "metadata.uid"));
    if !uid.is_empty() && uid != current {
        return Err(ApiError::conflict(
            kind,
            name,
            &format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {current}"
            ),
        ));
    }
    Ok(())
}

fn keep_system_fields(kind: &Kind, new: &mut Value, old: &Value) -> Result<()> {
    let named = !matches!(text(new, "metadata.resourceVersion"), "" | "0");
    if kind.updates_name_a_version() && !named {
        let mut errors = Errors::default();
        errors.invalid(
            "metadata.resourceVersion",
            0,
            "must be specified for an update",
        );
        return errors.into_result(kind, text(old, "metadata.name"));
    }
    check_version(kind, new, old)?;
    let Some(meta) = json::child(new, "metadata") else {
        return Err(ApiError::bad_request("metadata is not a JSON object"));
    };
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "selfLink",
    ] {
        put(
            meta,
            field,
            at(old, "metadata").and_then(|m| m.get(field)).cloned(),
        );
    }
    Ok(())
}

/// Counts a change of what is neither metadata nor status.
fn bump_generation(kind: &Kind, new: &mut Value, old: &Value) {
    if !kind.generation {
        return;
    }
    let body = |v: &Value| -> Map<String, Value> {
        v.as_object()
            .map(|o| {
                o.iter()
                    .filter(|(k, _)| {
                        !matches!(k.as_str(), "apiVersion" | "kind" | "metadata")
                            && (k.as_str() != "status" || kind.status == StatusRule::None)
                    })
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect()
            })
            .unwrap_or_default()
    };
    if body(new) != body(old) {
        raise_generation(new);
    }
}

fn raise_generation(object: &mut Value) {
    let generation = json::int(object, "metadata.generation").unwrap_or(0);
    if let Some(meta) = json::child(object, "metadata") {
        meta["generation"] = generation.saturating_add(1).into();
    }
}

/// The parts of `metav1.DeleteOptions` that have an effect.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub propagation: Option<Propagation>,
    pub dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

impl Propagation {
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "Orphan" => Ok(Propagation::Orphan),
            "Background" => Ok(Propagation::Background),
            "Foreground" => Ok(Propagation::Foreground),
            other => {
                let mut errors = Errors::default();
                let known = ["Foreground", "Background", "Orphan", "nil"];
                errors.not_supported("propagationPolicy", other, &known);
                Err(ApiError::invalid_named(
                    "meta.k8s.io",
                    "DeleteOptions",
                    "",
                    errors,
                ))
            }
        }
    }
}

impl Propagation {
    /// What `propagationPolicy` ("" is none) and the older `orphanDependents` ask for.
    pub fn of(policy: &str, orphan: Option<bool>) -> Result<Option<Self>> {
        match (policy, orphan) {
            ("", Some(true)) => Ok(Some(Propagation::Orphan)),
            ("", Some(false)) => Ok(Some(Propagation::Background)),
            ("", None) => Ok(None),
            (policy, None) => Propagation::parse(policy).map(Some),
            (policy, Some(_)) => {
                let mut errors = Errors::default();
                errors.invalid(
                    "propagationPolicy",
                    policy,
                    "orphanDependents and deletionPropagation cannot be both set",
                );
                Err(ApiError::invalid_named(
                    "meta.k8s.io",
                    "DeleteOptions",
                    "",
                    errors,
                ))
            }
        }
    }
}

impl DeleteOptions {
    /// From a `DeleteOptions` object; query parameters override it at the caller.
    pub fn from_value(value: &Value) -> Result<Self> {
        let policy = text(value, "propagationPolicy");
        let orphan = at(value, "orphanDependents").and_then(Value::as_bool);
        let propagation = Propagation::of(policy, orphan)?;
        let owned = |path: &str| at(value, path).and_then(Value::as_str).map(str::to_string);
        let dry_run = crate::options::dry_run(
            "DeleteOptions",
            list(value, "dryRun").iter().filter_map(Value::as_str),
        )?;
        Ok(DeleteOptions {
            grace_period_seconds: json::int(value, "gracePeriodSeconds"),
            uid: owned("preconditions.uid"),
            resource_version: owned("preconditions.resourceVersion"),
            propagation,
            dry_run,
        })
    }
}

/// What a delete leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum DeleteOutcome {
    /// Remove it now.
    Remove,
    /// Store this: the object with its deletion time.
    Mark(Box<Value>),
    /// It is being deleted already; nothing to store. Answer with the object.
    Unchanged,
}

/// Decides a delete of `old` (in stored form, with its current resourceVersion).
pub fn prepare_delete(
    kind: &Kind,
    old: &Value,
    options: &DeleteOptions,
    now: Timestamp,
) -> Result<DeleteOutcome> {
    let name = text(old, "metadata.name");
    let precondition = |what: &str, asked: &Option<String>, current: &str| match asked {
        Some(asked) if asked != current => Err(ApiError::conflict(
            kind,
            name,
            &format!(
                "Precondition failed: {what} in precondition: {asked}, {what} in object meta: {current}"
            ),
        )),
        _ => Ok(()),
    };
    precondition("UID", &options.uid, text(old, "metadata.uid"))?;
    precondition(
        "ResourceVersion",
        &options.resource_version,
        text(old, "metadata.resourceVersion"),
    )?;

    let mut marked = old.clone();
    if kind.id() == DEFINITION && at(old, "metadata.deletionTimestamp").is_none() {
        names::mark_deleted(&mut marked, now);
    }
    let finalizers = finalizers_after(&marked, options.propagation);
    let held = !finalizers.is_empty();
    put(
        &mut marked["metadata"],
        "finalizers",
        held.then(|| Value::Array(finalizers)),
    );

    if kind.is("", "Namespace") {
        let held = held || !list(old, "spec.finalizers").is_empty();
        return Ok(mark_namespace(old, marked, held, now));
    }

    let grace = grace_seconds(kind, old, options);
    if at(old, "metadata.deletionTimestamp").is_some() {
        let current = json::int(old, "metadata.deletionGracePeriodSeconds").unwrap_or(0);
        // A second delete can only shorten the time that is left.
        let shorter = options.grace_period_seconds.is_some() && grace < current;
        if grace == 0 && !held && (shorter || current == 0) {
            return Ok(DeleteOutcome::Remove);
        }
        if shorter {
            let end = time::parse(text(old, "metadata.deletionTimestamp")).unwrap_or(now);
            let end = end
                .as_second()
                .saturating_sub(current)
                .saturating_add(grace);
            let end = Timestamp::from_second(end).unwrap_or(now);
            let meta = &mut marked["metadata"];
            meta["deletionTimestamp"] = time::format(end).into();
            meta["deletionGracePeriodSeconds"] = grace.into();
        }
        return Ok(if marked == *old {
            DeleteOutcome::Unchanged
        } else {
            DeleteOutcome::Mark(Box::new(marked))
        });
    }
    if grace == 0 && !held {
        return Ok(DeleteOutcome::Remove);
    }
    let end = Timestamp::from_second(now.as_second().saturating_add(grace)).unwrap_or(now);
    let meta = &mut marked["metadata"];
    meta["deletionTimestamp"] = time::format(end).into();
    meta["deletionGracePeriodSeconds"] = grace.into();
    if at(old, "metadata.generation").is_some() {
        raise_generation(&mut marked);
    }
    Ok(DeleteOutcome::Mark(Box::new(marked)))
}

fn mark_namespace(old: &Value, mut marked: Value, held: bool, now: Timestamp) -> DeleteOutcome {
    if !held {
        return DeleteOutcome::Remove;
    }
    if at(old, "metadata.deletionTimestamp").is_none() {
        marked["metadata"]["deletionTimestamp"] = time::format(now).into();
    }
    if let Some(status) = json::child(&mut marked, "status") {
        status["phase"] = "Terminating".into();
    }
    if marked == *old {
        DeleteOutcome::Unchanged
    } else {
        DeleteOutcome::Mark(Box::new(marked))
    }
}

/// The finalizers that a delete with this propagation policy leaves: the garbage collector acts on
/// `orphan` and `foregroundDeletion`, and removes them.
fn finalizers_after(old: &Value, propagation: Option<Propagation>) -> Vec<Value> {
    let mut finalizers: Vec<Value> = list(old, "metadata.finalizers").to_vec();
    let wanted = match propagation {
        None => return finalizers,
        Some(Propagation::Orphan) => Some("orphan"),
        Some(Propagation::Foreground) => Some("foregroundDeletion"),
        Some(Propagation::Background) => None,
    };
    finalizers.retain(|f| {
        !matches!(f.as_str(), Some("orphan" | "foregroundDeletion")) || f.as_str() == wanted
    });
    if let Some(wanted) = wanted
        && !finalizers.iter().any(|f| f == wanted)
    {
        finalizers.push(wanted.into());
    }
    finalizers
}

/// How long a deleted object stays for its owner on the node to end it: only pods that run do.
fn grace_seconds(kind: &Kind, old: &Value, options: &DeleteOptions) -> i64 {
    if !kind.is("", "Pod") {
        return 0;
    }
    let unbound = text(old, "spec.nodeName").is_empty();
    let ended = matches!(text(old, "status.phase"), "Failed" | "Succeeded");
    if unbound || ended {
        return 0;
    }
    let grace = options
        .grace_period_seconds
        .or_else(|| json::int(old, "spec.terminationGracePeriodSeconds"))
        .unwrap_or(30);
    if grace < 0 { 1 } else { grace }
}

/// `pods/binding`: the pod with its node, or why it can't be bound.
pub fn bind(kind: &Kind, pod: &Value, binding: &Value, now: Timestamp) -> Result<Value> {
    let name = text(pod, "metadata.name");
    let node = text(binding, "target.name");
    let mut errors = Errors::default();
    if !matches!(text(binding, "target.kind"), "" | "Node") {
        errors.not_supported(
            "target.kind",
            text(binding, "target.kind"),
            &["Node", "<empty>"],
        );
    }
    if node.is_empty() {
        errors.required("target.name", "");
    }
    errors.into_result(kind, name)?;
    let refuse = |why: String| {
        let mut error = ApiError::conflict(kind, name, &why);
        error.message = format!("Operation cannot be fulfilled on pods/binding \"{name}\": {why}");
        Err(error)
    };
    let uid = text(binding, "metadata.uid");
    if !uid.is_empty() && uid != text(pod, "metadata.uid") {
        return refuse(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            text(pod, "metadata.uid")
        ));
    }
    if at(pod, "metadata.deletionTimestamp").is_some() {
        return refuse(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    let current = text(pod, "spec.nodeName");
    if !current.is_empty() {
        return refuse(format!(
            "pod {name} is already assigned to node \"{current}\""
        ));
    }
    let mut bound = pod.clone();
    for (key, value) in json::map(binding, "metadata.annotations")
        .into_iter()
        .flatten()
    {
        if let Some(annotations) = json::child(&mut bound["metadata"], "annotations") {
            annotations[key.as_str()] = value.clone();
        }
    }
    if let Some(spec) = json::child(&mut bound, "spec") {
        spec["nodeName"] = node.into();
    }
    if let Some(status) = json::child(&mut bound, "status") {
        json::default(status, "conditions", json!([]));
        if let Some(conditions) = json::list_mut(status, "conditions") {
            conditions.retain(|c| text(c, "type") != "PodScheduled");
            conditions.push(json!({
                "type": "PodScheduled", "status": "True",
                "lastProbeTime": null, "lastTransitionTime": time::format(now),
            }));
        }
    }
    raise_generation(&mut bound);
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::find;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn create(group: &str, plural: &str, mut object: Value) -> Result<Value> {
        let kind = find(group, "v1", plural).unwrap();
        let namespace = kind.namespaced.then_some("ns");
        let ctx = CreateContext {
            namespace,
            now: now(),
            uid: "u1",
            suffix: "abcde",
        };
        conform(kind, &mut object, namespace, None)?;
        crate::default_object(kind, &mut object);
        prepare_create(kind, &mut object, &ctx)?;
        Ok(object)
    }

    fn pod() -> Value {
        json!({"metadata": {"generateName": "p-", "deletionTimestamp": "x", "generation": 9},
               "spec": {"containers": [{"name": "c", "image": "i"}]},
               "status": {"phase": "Running"}})
    }

    #[test]
    fn create_writes_system_fields() {
        let p = create("", "pods", pod()).unwrap();
        assert_eq!(
            p["metadata"],
            json!({"generateName": "p-", "namespace": "ns", "name": "p-abcde", "uid": "u1",
                   "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1})
        );
        assert_eq!(
            p["status"],
            json!({"phase": "Pending", "qosClass": "BestEffort"})
        );
        let keys: Vec<&String> = p.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["apiVersion", "kind", "metadata", "spec", "status"]);
        let n = create("", "namespaces", json!({"metadata": {"name": "x"}})).unwrap();
        assert_eq!(n["spec"]["finalizers"], json!(["kubernetes"]));
        assert_eq!(n["metadata"]["labels"]["kubernetes.io/metadata.name"], "x");
        assert_eq!(n["status"]["phase"], "Active");
    }

    #[test]
    fn create_refuses() {
        let error = create("", "pods", json!({"metadata": {"name": "p"}})).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (422, "Pod \"p\" is invalid: spec.containers: Required value")
        );
        let status = error.to_status();
        assert_eq!(
            status["details"]["causes"],
            json!([{"reason": "FieldValueRequired", "message": "Required value",
                    "field": "spec.containers"}])
        );
        let mut wrong = pod();
        wrong["metadata"]["namespace"] = "other".into();
        assert_eq!(create("", "pods", wrong).unwrap_err().code, 400);
        let mut wrong = pod();
        wrong["apiVersion"] = "v2".into();
        assert!(
            create("", "pods", wrong)
                .unwrap_err()
                .message
                .contains("does not match the expected API version")
        );
    }

    #[test]
    fn update_keeps_system_fields_and_counts_generations() {
        let kind = find("", "v1", "pods").unwrap();
        let mut old = create("", "pods", pod()).unwrap();
        old["metadata"]["resourceVersion"] = "5".into();
        let mut new = old.clone();
        new["metadata"]["uid"] = Value::Null;
        new["metadata"]["creationTimestamp"] = Value::Null;
        new["metadata"]["labels"] = json!({"a": "b"});
        new["status"] = json!({"phase": "Failed"});
        let outcome = prepare_update(kind, &mut new, &old).unwrap();
        assert_eq!(outcome, UpdateOutcome::Store);
        assert_eq!(new["metadata"]["uid"], "u1");
        assert_eq!(new["metadata"]["generation"], 1);
        assert_eq!(new["status"]["phase"], "Pending");
        new["spec"]["containers"][0]["image"] = "j".into();
        prepare_update(kind, &mut new, &old).unwrap();
        assert_eq!(new["metadata"]["generation"], 2);
        new["metadata"]["resourceVersion"] = "4".into();
        let error = prepare_update(kind, &mut new, &old).unwrap_err();
        assert_eq!(
            error.message,
            "Operation cannot be fulfilled on pods \"p-abcde\": the object has been modified; please apply your changes to the latest version and try again"
        );
    }

    #[test]
    fn status_updates_touch_status_and_notes_only() {
        let kind = find("", "v1", "pods").unwrap();
        let old = create("", "pods", pod()).unwrap();
        let mut new = old.clone();
        new["status"] = json!({"phase": "Running", "qosClass": "Guaranteed"});
        new["spec"]["containers"] = json!([]);
        new["metadata"]["labels"] = json!({"a": "b"});
        new["metadata"]["generation"] = json!(9);
        new["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]);
        prepare_status_update(kind, &mut new, &old).unwrap();
        assert_eq!(
            new["status"],
            json!({"phase": "Running", "qosClass": "BestEffort"})
        );
        assert_eq!(new["spec"], old["spec"]);
        let mut noted = old["metadata"].clone();
        noted["labels"] = json!({"a": "b"});
        assert_eq!(new["metadata"], noted);

        // Of other kinds, nothing.
        let kind = find("apps", "v1", "deployments").unwrap();
        let old = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d", "namespace": "ns", "uid": "u1"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}}, "status": {}});
        let mut new = old.clone();
        new["metadata"]["labels"] = json!({"a": "b"});
        new["status"] = json!({"replicas": 1});
        prepare_status_update(kind, &mut new, &old).unwrap();
        assert_eq!(
            (&new["metadata"], &new["status"]["replicas"]),
            (&old["metadata"], &json!(1))
        );
    }

    #[test]
    fn ephemeral_containers_are_added_and_stay() {
        let kind = find("", "v1", "pods").unwrap();
        let mut born = pod();
        born["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "i"}]);
        let error = create("", "pods", born).unwrap_err();
        assert_eq!(
            error.message,
            "Pod \"p-abcde\" is invalid: spec.ephemeralContainers: Forbidden: cannot be set on create"
        );
        let old = create("", "pods", pod()).unwrap();
        let add = |old: &Value, name: &str| {
            let mut new = old.clone();
            let spec = json::child(&mut new, "spec").unwrap();
            json::default(spec, "ephemeralContainers", json!([]));
            let added = json!({"name": name, "image": "i"});
            json::list_mut(spec, "ephemeralContainers")
                .unwrap()
                .push(added);
            crate::default_object(kind, &mut new);
            new
        };
        let mut one = add(&old, "d");
        // What isn't theirs stays as it is.
        one["metadata"]["labels"] = json!({"a": "b"});
        one["spec"]["nodeName"] = "elsewhere".into();
        prepare_ephemeral(kind, &mut one, &old).unwrap();
        assert_eq!(one["spec"]["ephemeralContainers"][0]["name"], "d");
        assert_eq!(one["metadata"]["labels"], Value::Null);
        assert_eq!(one["spec"]["nodeName"], Value::Null);
        assert_eq!(one["metadata"]["generation"], 2);
        let mut two = add(&one, "e");
        prepare_ephemeral(kind, &mut two, &one).unwrap();
        let refused = |mut new: Value| prepare_ephemeral(kind, &mut new, &two).unwrap_err().message;
        let mut fewer = two.clone();
        fewer["spec"]["ephemeralContainers"]
            .as_array_mut()
            .unwrap()
            .remove(0);
        assert!(refused(fewer).contains(
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed"
        ));
        let mut other = two.clone();
        other["spec"]["ephemeralContainers"][1]["image"] = "j".into();
        assert!(refused(other).contains(
            "spec.ephemeralContainers[1]: Forbidden: existing ephemeral containers \"e\" may not be changed"
        ));
        // Not by the pod itself.
        let mut main = add(&two, "f");
        let error = prepare_update(kind, &mut main, &two).unwrap_err();
        assert!(
            error.message.ends_with("changed: ephemeralContainers"),
            "{error}"
        );
        let mut mirror = old.clone();
        mirror["metadata"]["annotations"] = json!({node_restriction::MIRROR: "x"});
        let error = prepare_ephemeral(kind, &mut add(&mirror, "d"), &mirror).unwrap_err();
        assert!(
            error
                .message
                .contains("static pods do not support ephemeral containers"),
            "{error}"
        );
    }

    fn delete(kind: &Kind, object: &Value, options: DeleteOptions) -> DeleteOutcome {
        prepare_delete(kind, object, &options, now()).unwrap()
    }

    fn marked(outcome: DeleteOutcome) -> Value {
        match outcome {
            DeleteOutcome::Mark(object) => *object,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pods_end_gracefully() {
        let kind = find("", "v1", "pods").unwrap();
        let mut p = create("", "pods", pod()).unwrap();
        // Nobody runs it yet.
        assert_eq!(
            delete(kind, &p, DeleteOptions::default()),
            DeleteOutcome::Remove
        );
        p["spec"]["nodeName"] = "n".into();
        let ending = marked(delete(kind, &p, DeleteOptions::default()));
        assert_eq!(
            ending["metadata"]["deletionTimestamp"],
            "2026-01-01T00:00:30Z"
        );
        assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 30);
        assert_eq!(ending["metadata"]["generation"], 2);
        assert_eq!(
            delete(kind, &ending, DeleteOptions::default()),
            DeleteOutcome::Unchanged
        );
        let grace = |s| DeleteOptions {
            grace_period_seconds: Some(s),
            ..Default::default()
        };
        let sooner = marked(delete(kind, &ending, grace(5)));
        assert_eq!(
            sooner["metadata"]["deletionTimestamp"],
            "2026-01-01T00:00:05Z"
        );
        assert_eq!(delete(kind, &ending, grace(60)), DeleteOutcome::Unchanged);
        assert_eq!(delete(kind, &ending, grace(0)), DeleteOutcome::Remove);
        assert_eq!(delete(kind, &p, grace(0)), DeleteOutcome::Remove);
        p["status"]["phase"] = "Succeeded".into();
        assert_eq!(
            delete(kind, &p, DeleteOptions::default()),
            DeleteOutcome::Remove
        );
    }

    #[test]
    fn finalizers_hold_an_object() {
        let kind = find("", "v1", "configmaps").unwrap();
        let c = create(
            "",
            "configmaps",
            json!({"metadata": {"name": "c", "finalizers": ["a/b"]}}),
        )
        .unwrap();
        let held = marked(delete(kind, &c, DeleteOptions::default()));
        assert_eq!(held["metadata"]["deletionGracePeriodSeconds"], 0);
        let mut freed = held.clone();
        put(&mut freed["metadata"], "finalizers", None);
        assert_eq!(
            prepare_update(kind, &mut freed, &held).unwrap(),
            UpdateOutcome::Remove
        );
        let mut more = held.clone();
        more["metadata"]["finalizers"] = json!(["a/b", "c/d"]);
        let error = prepare_update(kind, &mut more, &held).unwrap_err();
        assert!(error.message.contains("no new finalizers can be added"));
        let orphan = DeleteOptions {
            propagation: Some(Propagation::Orphan),
            ..Default::default()
        };
        let plain = create("", "configmaps", json!({"metadata": {"name": "c"}})).unwrap();
        assert_eq!(
            marked(delete(kind, &plain, orphan))["metadata"]["finalizers"],
            json!(["orphan"])
        );
    }

    #[test]
    fn namespaces_end_when_they_are_empty() {
        let kind = find("", "v1", "namespaces").unwrap();
        let n = create("", "namespaces", json!({"metadata": {"name": "x"}})).unwrap();
        let ending = marked(delete(kind, &n, DeleteOptions::default()));
        assert_eq!(ending["status"]["phase"], "Terminating");
        assert_eq!(
            delete(kind, &ending, DeleteOptions::default()),
            DeleteOutcome::Unchanged
        );
        let mut done = ending.clone();
        done["spec"]["finalizers"] = json!([]);
        assert_eq!(
            prepare_finalize(kind, &mut done, &ending).unwrap(),
            UpdateOutcome::Remove
        );
    }

    #[test]
    fn preconditions() {
        let kind = find("", "v1", "configmaps").unwrap();
        let c = create("", "configmaps", json!({"metadata": {"name": "c"}})).unwrap();
        let options = DeleteOptions {
            uid: Some("u2".into()),
            ..Default::default()
        };
        let error = prepare_delete(kind, &c, &options, now()).unwrap_err();
        assert_eq!(error.code, 409);
        assert!(
            error
                .message
                .contains("UID in precondition: u2, UID in object meta: u1")
        );
        let options = json!({"propagationPolicy": "Foreground", "dryRun": ["All"],
                             "preconditions": {"resourceVersion": "3"}});
        let options = DeleteOptions::from_value(&options).unwrap();
        assert!(options.dry_run);
        assert_eq!(options.propagation, Some(Propagation::Foreground));
        assert_eq!(options.resource_version.as_deref(), Some("3"));
        assert!(DeleteOptions::from_value(&json!({"propagationPolicy": "X"})).is_err());
    }

    #[test]
    fn binding() {
        let kind = find("", "v1", "pods").unwrap();
        let p = create("", "pods", pod()).unwrap();
        let binding = json!({"target": {"kind": "Node", "name": "n1"}});
        let bound = bind(kind, &p, &binding, now()).unwrap();
        assert_eq!(bound["spec"]["nodeName"], "n1");
        assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
        let error = bind(kind, &bound, &binding, now()).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (
                409,
                "Operation cannot be fulfilled on pods/binding \"p-abcde\": pod p-abcde is already assigned to node \"n1\""
            )
        );
        assert_eq!(bind(kind, &p, &json!({}), now()).unwrap_err().code, 422);
    }

    #[test]
    fn suffixes() {
        assert_eq!(name_suffix(0), "bbbbb");
        assert!(name_suffix(u64::MAX).bytes().all(|b| SUFFIX.contains(&b)));
    }
}
