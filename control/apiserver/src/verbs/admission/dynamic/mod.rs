//! Webhooks in the way of a request. Mutating ones come after the server's own plugins, which look
//! once more at what has changed; validating ones see what would be stored.

mod asker;
mod hooks;
mod policies;
mod subject;
mod webhooks;

use rhumb_api::admission::dynamic::{Named, Operation};
use rhumb_api::json::{self, text};
use rhumb_api::status::{ApiError, Result};
use serde_json::Value;

pub use hooks::Configured;
use hooks::Hooks;
use subject::{Objects, Subject};
use webhooks::{Pair, Turns};

use crate::verbs::{Request, admit};

/// What a subresource takes or shows instead of its object.
pub struct Own {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// Its name in OpenAPI.
    pub schema: &'static str,
}

impl Own {
    /// Of a connection: the query, which is no object, so that nothing of it can be changed.
    pub fn query(kind: &'static str) -> Own {
        Own {
            group: "",
            version: "v1",
            kind,
            schema: "",
        }
    }

    fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_string(),
            group => format!("{group}/{}", self.version),
        }
    }

    fn objects(&self) -> Objects {
        let kind = Named {
            group: self.group.into(),
            version: self.version.into(),
            name: self.kind.into(),
        };
        Objects::Own(kind, self.schema)
    }
}

/// What is configured, if anything is and the kind is one that it may be about.
fn configured(request: &Request) -> Option<std::sync::Arc<Hooks>> {
    let hooks = request.api.hooks.now();
    let exempt = request.kind.group == rhumb_api::admission::dynamic::GROUP;
    (!hooks.is_empty() && !exempt).then_some(hooks)
}

/// Whether anything is configured that the request may be about.
pub fn is_any(request: &Request) -> bool {
    configured(request).is_some()
}

/// A new object before it is made ready to be stored; `name` is what the client calls it.
pub async fn admit_create(
    request: &Request,
    name: &str,
    object: &mut Value,
    dry_run: bool,
) -> Result<()> {
    admit::create(request, object).await?;
    let Some(hooks) = configured(request).filter(|h| !h.mutating.is_empty()) else {
        return Ok(());
    };
    let subject = Subject::new(request, Operation::Create, Objects::Whole, name, dry_run).await?;
    let mut turns = Turns::default();
    let mut taken = Some(object.take());
    let changed = subject
        .mutate(&hooks.mutating, &mut taken, None, &mut turns)
        .await?;
    *object = taken.unwrap_or_default();
    if changed {
        admit::create(request, object).await?;
        let mut taken = Some(object.take());
        subject
            .mutate(&hooks.mutating, &mut taken, None, &mut turns.again())
            .await?;
        *object = taken.unwrap_or_default();
        admit::may_create(request, object).await?;
    }
    Ok(())
}

/// A changed object before it is made ready; `own` if the request is about something else of it.
pub async fn admit_update(
    request: &Request,
    own: Option<&Own>,
    new: &mut Value,
    old: &Value,
    dry_run: bool,
) -> Result<()> {
    mutate(request, Operation::Update, own, new, Some(old), dry_run).await
}

async fn mutate(
    request: &Request,
    operation: Operation,
    own: Option<&Own>,
    new: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<()> {
    let Some(hooks) = configured(request).filter(|h| !h.mutating.is_empty()) else {
        return Ok(());
    };
    let objects = own.map_or(Objects::Whole, Own::objects);
    let name = &request.resource.name;
    let subject = Subject::new(request, operation, objects, name, dry_run).await?;
    let mut turns = Turns::default();
    let mut taken = Some(new.take());
    let changed = subject
        .mutate(&hooks.mutating, &mut taken, old, &mut turns)
        .await?;
    if changed {
        subject
            .mutate(&hooks.mutating, &mut taken, old, &mut turns.again())
            .await?;
    }
    *new = taken.unwrap_or_default();
    Ok(())
}

/// An object that is ready to be stored.
pub async fn validate(
    request: &Request,
    own: Option<&Own>,
    new: &Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<()> {
    let Some(hooks) = configured(request) else {
        return Ok(());
    };
    let operation = match old {
        Some(_) => Operation::Update,
        None => Operation::Create,
    };
    let name = match request.resource.name.as_str() {
        "" => text(new, "metadata.name"),
        name => name,
    };
    let objects = own.map_or(Objects::Whole, Own::objects);
    let subject = Subject::new(request, operation, objects, name, dry_run).await?;
    let pair = Pair {
        object: Some(new),
        old,
    };
    refuse(&subject, &hooks, pair).await
}

/// Policies come before webhooks, which cost more.
async fn refuse(subject: &Subject<'_>, hooks: &Hooks, pair: Pair<'_>) -> Result<()> {
    subject.judge(&hooks.policies, pair).await?;
    subject.validate(&hooks.validating, pair).await
}

/// What is posted to a subresource, and stored in another form or not at all.
pub async fn post(request: &Request, own: &Own, object: &mut Value, dry_run: bool) -> Result<()> {
    // As of what is stored: whoever looks at it finds what it is, and where.
    json::default(object, "apiVersion", own.api_version());
    json::default(object, "kind", own.kind);
    if let (Some(namespace), Some(metadata)) =
        (request.namespace(), json::child(object, "metadata"))
    {
        match text(metadata, "namespace") {
            "" => json::put(metadata, "namespace", Some(namespace.into())),
            given if given != namespace => {
                return Err(ApiError::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            _ => {}
        }
    }
    mutate(request, Operation::Create, Some(own), object, None, dry_run).await?;
    validate(request, Some(own), object, None, dry_run).await
}

/// An object that is to go.
pub async fn delete(request: &Request, old: &Value, dry_run: bool) -> Result<()> {
    let Some(hooks) = configured(request) else {
        return Ok(());
    };
    let name = &request.resource.name;
    let subject = Subject::new(request, Operation::Delete, Objects::Whole, name, dry_run).await?;
    let mut none = None;
    subject
        .mutate(&hooks.mutating, &mut none, Some(old), &mut Turns::default())
        .await?;
    let pair = Pair {
        object: None,
        old: Some(old),
    };
    refuse(&subject, &hooks, pair).await
}

/// A stream to a pod, or a request that is passed on: `options` is what the query says.
pub async fn connect(request: &Request, own: &Own, mut options: Value) -> Result<()> {
    if request.query.has("dryRun") {
        return Err(ApiError::bad_request("dryRun is not supported"));
    }
    let Some(hooks) = configured(request) else {
        return Ok(());
    };
    let name = &request.resource.name;
    let subject = Subject::new(request, Operation::Connect, own.objects(), name, false).await?;
    let mut taken = Some(options.take());
    subject
        .mutate(&hooks.mutating, &mut taken, None, &mut Turns::default())
        .await?;
    let pair = Pair {
        object: taken.as_ref(),
        old: None,
    };
    refuse(&subject, &hooks, pair).await
}
