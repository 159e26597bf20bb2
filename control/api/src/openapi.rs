//! OpenAPI v3 (one document a group and version) and v2 (one for all), from the registry and the
//! types. `kubectl explain`, client-side apply and the check for `fieldValidation` read them.

use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};

use crate::registry::{KINDS, Kind, Registry, Subresource};
use crate::schema;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const PATCH_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    STRATEGIC,
    "application/apply-patch+yaml",
];

const CUSTOM_PATCH_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
];

/// All documents, made once by the caller and kept or served from.
#[derive(Debug)]
pub struct Documents<'a> {
    registry: &'a Registry,
}

/// The definitions of the built-in kinds, and of what they refer to.
fn built_in() -> &'static Map<String, Value> {
    static DEFINITIONS: OnceLock<Map<String, Value>> = OnceLock::new();
    DEFINITIONS.get_or_init(|| {
        let mut definitions = schema::definitions();
        for (name, definition) in &mut definitions {
            // Anything, for the most part: as in Kubernetes' documents nothing is said of them.
            if name.contains(".apiextensions.v1.JSON") && definition.get("properties").is_none() {
                crate::json::remove(definition, "oneOf");
                crate::json::remove(definition, "type");
            }
            normalize(definition);
        }
        for kind in KINDS.iter() {
            let name = kind.schema_name();
            if let Some(definition) = definitions.get_mut(name.as_ref()) {
                // k8s-openapi marks metadata as required, Kubernetes doesn't.
                drop_required(definition, "metadata");
                definition["x-kubernetes-group-version-kind"] =
                    json!([gvk(&kind.group, &kind.version, &kind.kind)]);
            }
            definitions.insert(format!("{name}List"), list_schema(kind));
        }
        for (name, group, version) in [
            ("io.k8s.api.autoscaling.v1.Scale", "autoscaling", "v1"),
            (
                "io.k8s.api.authentication.v1.TokenRequest",
                "authentication.k8s.io",
                "v1",
            ),
            ("io.k8s.api.core.v1.Binding", "", "v1"),
            ("io.k8s.api.policy.v1.Eviction", "policy", "v1"),
            (
                "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
                "",
                "v1",
            ),
            ("io.k8s.apimachinery.pkg.apis.meta.v1.Status", "", "v1"),
        ] {
            if let Some(definition) = definitions.get_mut(name) {
                drop_required(definition, "metadata");
                let kind = name.rsplit('.').next().unwrap_or(name);
                definition["x-kubernetes-group-version-kind"] = json!([gvk(group, version, kind)]);
            }
        }
        definitions.sort_keys();
        definitions
    })
}

impl<'a> Documents<'a> {
    pub fn new(registry: &'a Registry) -> Self {
        Documents { registry }
    }

    /// The paths of the v3 documents.
    pub fn v3_paths(&self) -> Vec<String> {
        let groups = self.registry.groups().into_iter();
        groups
            .flat_map(|(group, versions)| {
                versions.into_iter().map(move |version| match group {
                    "" => format!("api/{version}"),
                    group => format!("apis/{group}/{version}"),
                })
            })
            .collect()
    }

    /// `GET /openapi/v3`: the documents by path, each with the hash of its text.
    pub fn v3_index<'t>(documents: impl Iterator<Item = (&'t str, &'t [u8])>) -> Value {
        let mut paths = Map::new();
        for (path, text) in documents {
            let hash = fnv(text);
            let url = format!("/openapi/v3/{path}?hash={hash:016X}");
            paths.insert(path.to_string(), json!({"serverRelativeURL": url}));
        }
        paths.sort_keys();
        json!({"paths": paths})
    }

    /// One document: `api/v1`, `apis/apps/v1`.
    pub fn v3(&self, path: &str) -> Option<Value> {
        let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
            ["api", version] => ("", *version),
            ["apis", group, version] => (*group, *version),
            _ => return None,
        };
        let mut kinds = self.registry.of_version(group, version).peekable();
        kinds.peek()?;
        let paths = paths(kinds, Style::V3);
        let paths = Value::Object(paths);
        let schemas = self.closure(&paths);
        Some(json!({
            "openapi": "3.0.0",
            "info": info(),
            "paths": paths,
            "components": {"schemas": schemas},
        }))
    }

    /// `GET /openapi/v2`.
    pub fn v2(&self) -> Value {
        let paths = Value::Object(paths(self.registry.kinds().iter(), Style::V2));
        let mut definitions = Value::Object(self.closure(&paths));
        for kind in self.registry.kinds() {
            let name = kind.schema_name();
            if kind.as_custom().is_some()
                && let Some(definition) = definitions.get_mut(&*name)
            {
                crate::crd::openapi::to_v2(definition);
            }
        }
        to_v2(&mut definitions);
        json!({
            "swagger": "2.0",
            "info": info(),
            "paths": paths,
            "definitions": definitions,
        })
    }

    /// The definitions that `value` refers to, and those that they refer to.
    fn closure(&self, value: &Value) -> Map<String, Value> {
        let mut found = std::collections::BTreeMap::new();
        let mut queue = Vec::new();
        references(value, &mut queue);
        while let Some(name) = queue.pop() {
            if !found.contains_key(&name)
                && let Some(definition) = self.definition(&name)
            {
                references(&definition, &mut queue);
                found.insert(name, definition);
            }
        }
        found.into_iter().collect()
    }

    /// A definition by its name: a built-in type, or a custom kind or its list.
    fn definition(&self, name: &str) -> Option<Value> {
        if let Some(definition) = built_in().get(name) {
            return Some(definition.clone());
        }
        self.registry.kinds().iter().find_map(|kind| {
            let custom = kind.as_custom()?;
            match name.strip_prefix(&*kind.schema_name())? {
                "" => Some(custom.definition(kind)),
                "List" => Some(list_schema(kind)),
                _ => None,
            }
        })
    }
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.36.0"})
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "kind": kind, "version": version})
}

fn drop_required(definition: &mut Value, field: &str) {
    if let Some(required) = definition.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|r| r != field);
        if required.is_empty() {
            crate::json::remove(definition, "required");
        }
    }
}

/// Brings a schema into the form of Kubernetes' documents: references wrapped in `allOf`, since
/// OpenAPI 3.0 ignores what stands beside a `$ref`, and int-or-string spelt out.
fn normalize(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(normalize),
        Value::Object(fields) => {
            // The schema of schemas has properties of these names.
            if fields.get("$ref").is_some_and(Value::is_string)
                && let Some(reference) = fields.shift_remove("$ref")
            {
                fields.insert("allOf".into(), json!([{"$ref": reference}]));
                return;
            }
            let description = fields
                .get("description")
                .and_then(Value::as_str)
                .unwrap_or("");
            if fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
                if description.starts_with("Quantity") {
                    fields.insert(
                        "oneOf".into(),
                        json!([{"type": "string"}, {"type": "number"}]),
                    );
                } else {
                    fields.insert("format".into(), "int-or-string".into());
                    fields.insert(
                        "oneOf".into(),
                        json!([{"type": "integer"}, {"type": "string"}]),
                    );
                }
                fields.shift_remove("x-kubernetes-int-or-string");
            }
            fields.values_mut().for_each(normalize);
        }
        _ => {}
    }
}

/// From v3's form to v2's: plain references, one type a schema.
fn to_v2(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(to_v2),
        Value::Object(fields) => {
            if fields.get("allOf").is_some_and(Value::is_array)
                && let Some(Value::Array(all)) = fields.shift_remove("allOf")
                && let Some(reference) = all.first().and_then(|r| r.get("$ref"))
            {
                let reference = reference
                    .as_str()
                    .unwrap_or("")
                    .replace("#/components/schemas/", "#/definitions/");
                fields.insert("$ref".into(), reference.into());
            }
            if fields.get("oneOf").is_some_and(Value::is_array) {
                fields.shift_remove("oneOf");
                fields.insert("type".into(), "string".into());
            }
            fields.values_mut().for_each(to_v2);
        }
        _ => {}
    }
}

fn references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|v| references(v, into)),
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                into.push(
                    reference
                        .rsplit('/')
                        .next()
                        .unwrap_or(reference)
                        .to_string(),
                );
            }
            fields.values().for_each(|v| references(v, into));
        }
        _ => {}
    }
}

fn list_schema(kind: &Kind) -> Value {
    let text = |name: &str| {
        // The same words as on every kind.
        let description = match name {
            "kind" => {
                "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"
            }
            _ => {
                "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"
            }
        };
        json!({"type": "string", "description": description})
    };
    json!({
        "description": format!("{} is a list of {}.", kind.list_kind, kind.plural),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text("apiVersion"),
            "items": {
                "type": "array",
                "description": format!("items is a list of {}.", kind.plural),
                "items": wrapped(kind.schema_name().as_ref()),
            },
            "kind": text("kind"),
            "metadata": wrapped(&format!("{META}.ListMeta")),
        },
        "x-kubernetes-group-version-kind": [gvk(&kind.group, &kind.version, &kind.list_kind)],
    })
}

fn wrapped(name: &str) -> Value {
    json!({"allOf": [{"$ref": format!("#/components/schemas/{name}")}]})
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    V2,
    V3,
}

impl Style {
    fn reference(self, name: &str) -> Value {
        match self {
            Style::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Style::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }

    fn parameter(self, place: &str, name: &str, ty: &str, description: &str) -> Value {
        let mut parameter = json!({"name": name, "in": place, "description": description});
        if place == "path" {
            parameter["required"] = true.into();
        }
        match self {
            Style::V2 => parameter["type"] = ty.into(),
            Style::V3 => parameter["schema"] = json!({"type": ty}),
        }
        parameter["uniqueItems"] = true.into();
        if self == Style::V3 {
            crate::json::remove(&mut parameter, "uniqueItems");
        }
        parameter
    }

    fn responses(self, codes: &[u16], schema: &str) -> Value {
        let mut responses = Map::new();
        for code in codes {
            let description = match code {
                201 => "Created",
                202 => "Accepted",
                _ => "OK",
            };
            let mut response = json!({"description": description});
            match self {
                Style::V2 => response["schema"] = self.reference(schema),
                Style::V3 => {
                    response["content"] =
                        json!({"application/json": {"schema": self.reference(schema)}});
                }
            }
            responses.insert(code.to_string(), response);
        }
        responses.insert("401".into(), json!({"description": "Unauthorized"}));
        Value::Object(responses)
    }

    /// Adds a body to an operation.
    fn body(self, operation: &mut Value, types: &[&str], schema: &str, required: bool) {
        match self {
            Style::V2 => {
                operation["consumes"] = types.into();
                if let Some(parameters) = crate::json::list_mut(operation, "parameters") {
                    parameters.push(json!({
                        "name": "body", "in": "body", "required": required,
                        "schema": self.reference(schema),
                    }));
                }
            }
            Style::V3 => {
                let content: Map<String, Value> = types
                    .iter()
                    .map(|t| ((*t).to_string(), json!({"schema": self.reference(schema)})))
                    .collect();
                operation["requestBody"] = json!({"content": content});
                if required {
                    operation["requestBody"]["required"] = true.into();
                }
            }
        }
    }
}

/// One operation before its verb's own parts are added.
struct Operation<'a> {
    style: Style,
    action: &'a str,
    description: String,
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

impl Operation<'_> {
    fn make(&self, parameters: Vec<Value>, codes: &[u16], schema: &str) -> Value {
        let mut operation = json!({
            "description": self.description,
            "tags": [tag(self.group, self.version)],
            "parameters": parameters,
            "responses": self.style.responses(codes, schema),
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": gvk(self.group, self.version, self.kind),
        });
        if self.style == Style::V2 {
            operation["consumes"] = json!(["*/*"]);
            operation["produces"] = json!(["application/json", "application/yaml"]);
            operation["schemes"] = json!(["https"]);
        }
        operation
    }
}

fn tag(group: &str, version: &str) -> String {
    let group = if group.is_empty() {
        "core"
    } else {
        group.split('.').next().unwrap_or(group)
    };
    format!("{group}_{version}")
}

fn paths<'a>(kinds: impl Iterator<Item = &'a Arc<Kind>>, style: Style) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in kinds {
        let root = if kind.group.is_empty() {
            format!("/api/{}", kind.version)
        } else {
            format!("/apis/{}/{}", kind.group, kind.version)
        };
        let all = format!("{root}/{}", kind.plural);
        let collection = if kind.namespaced {
            paths.insert(
                all.clone(),
                path_item(style, &[], vec![("get", list(kind, style))]),
            );
            format!("{root}/namespaces/{{namespace}}/{}", kind.plural)
        } else {
            all
        };
        let mut scope = Vec::new();
        if kind.namespaced {
            scope.push((
                "namespace",
                "object name and auth scope, such as for teams and projects",
            ));
        }
        let mut operations = vec![("get", list(kind, style)), ("post", create(kind, style))];
        if kind.verbs.contains(&"deletecollection") {
            operations.push(("delete", delete(kind, style, true)));
        }
        paths.insert(collection.clone(), path_item(style, &scope, operations));
        let item = format!("{collection}/{{name}}");
        let mut scope_name = vec![("name", "name of the object")];
        scope_name.extend(scope);
        paths.insert(
            item.clone(),
            path_item(
                style,
                &scope_name,
                vec![
                    ("get", get(kind, style)),
                    ("put", put(kind, style)),
                    ("patch", patch(kind, style)),
                    ("delete", delete(kind, style, false)),
                ],
            ),
        );
        for sub in &kind.subresources {
            let operations = subresource(kind, sub, style);
            paths.insert(
                format!("{item}/{}", sub.name),
                path_item(style, &scope_name, operations),
            );
        }
    }
    paths.sort_keys();
    paths
}

fn path_item(style: Style, scope: &[(&str, &str)], operations: Vec<(&str, Value)>) -> Value {
    let mut item = Map::new();
    for (method, operation) in operations {
        item.insert(method.to_string(), operation);
    }
    if !scope.is_empty() {
        let parameters: Vec<Value> = scope
            .iter()
            .map(|(name, description)| style.parameter("path", name, "string", description))
            .collect();
        item.insert("parameters".into(), parameters.into());
    }
    Value::Object(item)
}

fn operation<'a>(
    kind: &'a Kind,
    style: Style,
    action: &'a str,
    description: String,
) -> Operation<'a> {
    Operation {
        style,
        action,
        description,
        group: &kind.group,
        version: &kind.version,
        kind: &kind.kind,
    }
}

fn write_parameters(style: Style) -> Vec<Value> {
    vec![
        style.parameter("query", "dryRun", "string", "When present, indicates that modifications should not be persisted. Valid values are: All: all dry run stages will be processed"),
        style.parameter("query", "fieldManager", "string", "fieldManager is a name associated with the actor or entity that is making these changes."),
        style.parameter("query", "fieldValidation", "string", "fieldValidation instructs the server on how to handle objects in the request (POST/PUT/PATCH) containing unknown or duplicate fields. Valid values are: Ignore, Warn (the default) and Strict."),
    ]
}

fn patch_parameters(style: Style) -> Vec<Value> {
    let mut parameters = write_parameters(style);
    parameters.push(style.parameter("query", "force", "boolean", "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people. Force flag must be unset for non-apply patch requests."));
    parameters
}

fn list_parameters(style: Style) -> Vec<Value> {
    [
        ("allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\"."),
        ("continue", "string", "The continue option should be set when retrieving more results from the server."),
        ("fieldSelector", "string", "A selector to restrict the list of returned objects by their fields. Defaults to everything."),
        ("labelSelector", "string", "A selector to restrict the list of returned objects by their labels. Defaults to everything."),
        ("limit", "integer", "limit is a maximum number of responses to return for a list call."),
        ("resourceVersion", "string", "resourceVersion sets a constraint on what resource versions a request may be served from."),
        ("resourceVersionMatch", "string", "resourceVersionMatch determines how resourceVersion is applied to list calls."),
        ("sendInitialEvents", "boolean", "sendInitialEvents may be set together with watch=true: the watch begins with the state of the collection."),
        ("timeoutSeconds", "integer", "Timeout for the list/watch call."),
        ("watch", "boolean", "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications."),
    ]
    .into_iter()
    .map(|(name, ty, description)| style.parameter("query", name, ty, description))
    .collect()
}

fn list(kind: &Kind, style: Style) -> Value {
    operation(
        kind,
        style,
        "list",
        format!("list or watch objects of kind {}", kind.kind),
    )
    .make(
        list_parameters(style),
        &[200],
        &format!("{}List", kind.schema_name()),
    )
}

fn get(kind: &Kind, style: Style) -> Value {
    operation(
        kind,
        style,
        "get",
        format!("read the specified {}", kind.kind),
    )
    .make(vec![], &[200], &kind.schema_name())
}

fn create(kind: &Kind, style: Style) -> Value {
    let schema = kind.schema_name();
    let mut created = operation(kind, style, "post", format!("create a {}", kind.kind)).make(
        write_parameters(style),
        &[200, 201, 202],
        &schema,
    );
    style.body(&mut created, &["*/*"], &schema, true);
    created
}

fn put(kind: &Kind, style: Style) -> Value {
    let schema = kind.schema_name();
    let mut replaced = operation(
        kind,
        style,
        "put",
        format!("replace the specified {}", kind.kind),
    )
    .make(write_parameters(style), &[200, 201], &schema);
    style.body(&mut replaced, &["*/*"], &schema, true);
    replaced
}

fn patch_types(kind: &Kind) -> &'static [&'static str] {
    match kind.as_custom() {
        Some(_) => CUSTOM_PATCH_TYPES,
        None => PATCH_TYPES,
    }
}

fn patch(kind: &Kind, style: Style) -> Value {
    let description = format!("partially update the specified {}", kind.kind);
    let mut patched = operation(kind, style, "patch", description).make(
        patch_parameters(style),
        &[200, 201],
        &kind.schema_name(),
    );
    style.body(
        &mut patched,
        patch_types(kind),
        &format!("{META}.Patch"),
        true,
    );
    patched
}

fn delete(kind: &Kind, style: Style, collection: bool) -> Value {
    let (action, what) = if collection {
        (
            "deletecollection",
            format!("delete collection of {}", kind.kind),
        )
    } else {
        ("delete", format!("delete a {}", kind.kind))
    };
    let mut parameters = vec![
        style.parameter("query", "dryRun", "string", "When present, indicates that modifications should not be persisted."),
        style.parameter("query", "gracePeriodSeconds", "integer", "The duration in seconds before the object should be deleted."),
        style.parameter("query", "propagationPolicy", "string", "Whether and how garbage collection will be performed: Orphan, Background or Foreground."),
    ];
    if collection {
        parameters.extend(list_parameters(style));
    }
    let schema = match kind.is_shown_when_deleted() && !collection {
        true => kind.schema_name().into_owned(),
        false => format!("{META}.Status"),
    };
    let mut deleted = operation(kind, style, action, what).make(parameters, &[200, 202], &schema);
    style.body(
        &mut deleted,
        &["*/*"],
        &format!("{META}.DeleteOptions"),
        false,
    );
    deleted
}

/// Name, type and description of the parameters of a pod's streams.
fn stream_parameters(name: &str) -> &'static [(&'static str, &'static str, &'static str)] {
    const EXEC: &[(&str, &str, &str)] = &[
        (
            "command",
            "string",
            "Command is the remote command to execute. argv array. Not executed within a shell.",
        ),
        (
            "container",
            "string",
            "Container in which to execute the command. Defaults to only container if there is only one container in the pod.",
        ),
        (
            "stderr",
            "boolean",
            "Redirect the standard error stream of the pod for this call.",
        ),
        (
            "stdin",
            "boolean",
            "Redirect the standard input stream of the pod for this call.",
        ),
        (
            "stdout",
            "boolean",
            "Redirect the standard output stream of the pod for this call.",
        ),
        (
            "tty",
            "boolean",
            "TTY if true indicates that a tty will be allocated for the call.",
        ),
    ];
    match name {
        "portforward" => &[(
            "ports",
            "integer",
            "List of ports to forward. Required when using WebSockets with v4.channel.k8s.io.",
        )],
        "proxy" => &[(
            "path",
            "string",
            "Path is the URL path to use for the current proxy request.",
        )],
        "attach" => &EXEC[1..],
        _ => EXEC,
    }
}

fn subresource(kind: &Kind, sub: &Subresource, style: Style) -> Vec<(&'static str, Value)> {
    let mut operations = Vec::new();
    let (group, version, sub_kind) = kind.subresource_kind(sub);
    let schema = match sub_kind {
        "Scale" => "io.k8s.api.autoscaling.v1.Scale".to_string(),
        "TokenRequest" => "io.k8s.api.authentication.v1.TokenRequest".to_string(),
        "Binding" => "io.k8s.api.core.v1.Binding".to_string(),
        "Eviction" => "io.k8s.api.policy.v1.Eviction".to_string(),
        _ => kind.schema_name().into_owned(),
    };
    let base = |action: &'static str, verb: &str| Operation {
        style,
        action,
        description: format!("{verb} {} of the specified {}", sub.name, kind.kind),
        group,
        version,
        kind: sub_kind,
    };
    match sub.name {
        // Streams and a text: no object in either direction.
        "exec" | "attach" | "portforward" | "proxy" => {
            let parameters: Vec<Value> = stream_parameters(sub.name)
                .iter()
                .map(|(n, t, d)| style.parameter("query", n, t, d))
                .collect();
            let methods: &[&'static str] = match sub.name {
                "proxy" => &["get", "put", "post", "delete", "patch"],
                _ => &["get", "post"],
            };
            for method in methods.iter().copied() {
                let mut op =
                    base("connect", "connect requests to").make(parameters.clone(), &[], &schema);
                op["responses"]["200"] = json!({"description": "OK"});
                operations.push((method, op));
            }
        }
        "log" => {
            let parameters: Vec<Value> = [
                ("container", "string", "The container for which to stream logs. Defaults to only container if there is one container in the pod."),
                ("follow", "boolean", "Follow the log stream of the pod. Defaults to false."),
                ("limitBytes", "integer", "If set, the number of bytes to read from the server before terminating the log output."),
                ("previous", "boolean", "Return previous terminated container logs. Defaults to false."),
                ("sinceSeconds", "integer", "A relative time in seconds before the current time from which to show logs."),
                ("tailLines", "integer", "If set, the number of lines from the end of the logs to show."),
                ("timestamps", "boolean", "If true, add an RFC3339 or RFC3339Nano timestamp at the beginning of every line of log output."),
            ]
            .into_iter()
            .map(|(n, t, d)| style.parameter("query", n, t, d))
            .collect();
            let mut op = base("get", "read").make(parameters, &[], &schema);
            op["responses"]["200"] = json!({"description": "OK"});
            operations.push(("get", op));
        }
        _ => {
            for verb in sub.verbs {
                match *verb {
                    "get" => {
                        operations.push(("get", base("get", "read").make(vec![], &[200], &schema)))
                    }
                    "create" => {
                        let mut op = base("post", "create").make(
                            write_parameters(style),
                            &[200, 201],
                            &schema,
                        );
                        style.body(&mut op, &["*/*"], &schema, true);
                        operations.push(("post", op));
                    }
                    "update" => {
                        let mut op = base("put", "replace").make(
                            write_parameters(style),
                            &[200, 201],
                            &schema,
                        );
                        style.body(&mut op, &["*/*"], &schema, true);
                        operations.push(("put", op));
                    }
                    "patch" => {
                        let mut op = base("patch", "partially update").make(
                            patch_parameters(style),
                            &[200, 201],
                            &schema,
                        );
                        style.body(&mut op, patch_types(kind), &format!("{META}.Patch"), true);
                        operations.push(("patch", op));
                    }
                    _ => {}
                }
            }
        }
    }
    operations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dangling(document: &Value, schemas: &Value) -> Vec<String> {
        let mut all = Vec::new();
        references(document, &mut all);
        all.retain(|name| schemas.get(name).is_none());
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn v3_documents_are_closed_and_tell_the_kinds() {
        let registry = Registry::built_in();
        let documents = Documents::new(&registry);
        for path in documents.v3_paths() {
            let document = documents.v3(&path).unwrap();
            let schemas = &document["components"]["schemas"];
            assert_eq!(dangling(&document, schemas), Vec::<String>::new(), "{path}");
        }
        let index = Documents::v3_index([("api/v1", b"{}".as_slice())].into_iter());
        let url = index["paths"]["api/v1"]["serverRelativeURL"].as_str();
        assert!(url.unwrap().starts_with("/openapi/v3/api/v1?hash="));
        assert!(documents.v3("apis/apps/v2").is_none());
        assert!(documents.v3("nonsense").is_none());
        let apps = documents.v3("apis/apps/v1").unwrap();
        let item = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
        assert_eq!(
            item["patch"]["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "kind": "Deployment", "version": "v1"})
        );
        let names: Vec<&str> = item["patch"]["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["name"].as_str().unwrap())
            .collect();
        assert!(names.contains(&"fieldValidation") && names.contains(&"dryRun"));
        assert!(
            item["patch"]["requestBody"]["content"]
                .get(STRATEGIC)
                .is_some()
        );
        let spec = &apps["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
        assert_eq!(spec["containers"]["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(
            spec["containers"]["items"]["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.api.core.v1.Container"
        );
    }

    #[test]
    fn v2_is_closed() {
        let document = Documents::new(&Registry::built_in()).v2();
        assert_eq!(
            dangling(&document, &document["definitions"]),
            Vec::<String>::new()
        );
        let text = document.to_string();
        assert!(
            !text.contains("#/components/")
                && !text.contains("\"allOf\":[")
                && !text.contains("\"oneOf\":[")
        );
        let port = &document["definitions"]["io.k8s.api.core.v1.ServicePort"]["properties"];
        assert_eq!(
            port["targetPort"]["$ref"],
            "#/definitions/io.k8s.apimachinery.pkg.util.intstr.IntOrString"
        );
    }
}
