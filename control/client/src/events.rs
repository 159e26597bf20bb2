//! A recorder of Events: the same event again raises the count of the one that is there, and an object
//! that causes too many is cut off for a while. Recording never blocks and never fails the caller.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource as Source, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{error, is_not_found};

/// Who records: what `kubectl describe` shows in the column From.
#[derive(Debug, Clone)]
pub struct EventSource {
    pub component: &'static str,
    pub host: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    Normal,
    Warning,
}

impl EventKind {
    fn as_str(self) -> &'static str {
        match self {
            EventKind::Normal => "Normal",
            EventKind::Warning => "Warning",
        }
    }
}

#[derive(Debug)]
struct Note {
    about: ObjectReference,
    kind: EventKind,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

/// A handle to the recording task; clones share it.
#[derive(Debug, Clone)]
pub struct Recorder {
    notes: mpsc::Sender<Note>,
}

/// Notes waiting to be written; beyond that they are dropped, as an Event is only a courtesy.
const BACKLOG: usize = 1024;
/// client-go's figures: events of one object beyond 25 pass at one every five minutes.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
/// Events remembered for counting.
const REMEMBERED: usize = 4096;

impl Recorder {
    /// A recorder that writes with `client` until `shutdown`.
    pub fn start(client: Client, source: EventSource, shutdown: CancellationToken) -> Self {
        let (notes, inbox) = mpsc::channel(BACKLOG);
        tokio::spawn(write_events(client, source, inbox, shutdown));
        Self { notes }
    }

    /// Records that `reason` happened to `about`.
    pub fn record<K>(
        &self,
        about: &K,
        kind: EventKind,
        reason: &'static str,
        message: impl Into<String>,
    ) where
        K: Resource<DynamicType = ()>,
    {
        self.record_ref(about.object_ref(&()), kind, reason, message);
    }

    /// As [`record`](Self::record), for what only a reference is known of.
    pub fn record_ref(
        &self,
        about: ObjectReference,
        kind: EventKind,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let note = Note {
            about,
            kind,
            reason,
            message: message.into(),
            at: Timestamp::now(),
        };
        if self.notes.try_send(note).is_err() {
            debug!(reason, "event dropped: too many are waiting to be written");
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    uid: String,
    namespace: String,
    name: String,
    kind: EventKind,
    reason: &'static str,
    message: String,
}

#[derive(Debug)]
struct Known {
    name: String,
    count: i32,
}

#[derive(Debug, PartialEq)]
enum Step {
    Create,
    Count { name: String, count: i32 },
    Drop,
}

/// What was recorded lately, and how much each object may still record.
#[derive(Debug, Default)]
struct Ledger {
    known: HashMap<Identity, Known>,
    order: VecDeque<Identity>,
    budget: HashMap<String, (f64, Instant)>,
}

impl Ledger {
    fn next(&mut self, id: &Identity, now: Instant) -> Step {
        if self.budget.len() > REMEMBERED {
            self.budget
                .retain(|_, (_, at)| now.duration_since(*at) < REFILL);
        }
        let (left, at) = self
            .budget
            .entry(format!("{}/{}", id.namespace, id.name))
            .or_insert((BURST, now));
        *left = (*left + now.duration_since(*at).as_secs_f64() / REFILL.as_secs_f64()).min(BURST);
        *at = now;
        if *left < 1.0 {
            return Step::Drop;
        }
        *left -= 1.0;
        match self.known.get(id) {
            Some(known) => Step::Count {
                name: known.name.clone(),
                count: known.count + 1,
            },
            None => Step::Create,
        }
    }

    fn wrote(&mut self, id: Identity, name: String, count: i32) {
        if self
            .known
            .insert(id.clone(), Known { name, count })
            .is_none()
        {
            self.order.push_back(id);
        }
        while self.order.len() > REMEMBERED {
            if let Some(old) = self.order.pop_front() {
                self.known.remove(&old);
            }
        }
    }
}

async fn write_events(
    client: Client,
    source: EventSource,
    mut inbox: mpsc::Receiver<Note>,
    shutdown: CancellationToken,
) {
    let mut ledger = Ledger::default();
    loop {
        let note = tokio::select! {
            () = shutdown.cancelled() => return,
            note = inbox.recv() => match note {
                Some(note) => note,
                None => return,
            },
        };
        let reason = note.reason;
        if let Err(error) = write(&client, &source, &mut ledger, note).await
            && !error::is_namespace_terminating(&error)
        {
            debug!(reason, %error, "event not written");
        }
    }
}

async fn write(
    client: &Client,
    source: &EventSource,
    ledger: &mut Ledger,
    note: Note,
) -> Result<(), kube::Error> {
    // Events about objects without a namespace live in `default`.
    let namespace = note
        .about
        .namespace
        .clone()
        .unwrap_or_else(|| "default".into());
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let id = Identity {
        uid: note.about.uid.clone().unwrap_or_default(),
        namespace: namespace.clone(),
        name: note.about.name.clone().unwrap_or_default(),
        kind: note.kind,
        reason: note.reason,
        message: note.message.clone(),
    };
    match ledger.next(&id, Instant::now()) {
        Step::Drop => return Ok(()),
        Step::Count { name, count } => {
            let patch = serde_json::json!({ "count": count, "lastTimestamp": Time(note.at) });
            match api
                .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await
            {
                Ok(_) => {
                    ledger.wrote(id, name, count);
                    return Ok(());
                }
                // It has expired: record it anew.
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Step::Create => {}
    }
    let name = format!("{}.{:016x}", id.name, rand::random::<u64>());
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace),
            ..Default::default()
        },
        involved_object: note.about,
        type_: Some(note.kind.as_str().into()),
        reason: Some(note.reason.into()),
        message: Some(note.message),
        source: Some(Source {
            component: Some(source.component.into()),
            host: source.host.clone(),
        }),
        reporting_component: Some(source.component.into()),
        reporting_instance: Some(source.host.clone().unwrap_or_default()),
        first_timestamp: Some(Time(note.at)),
        last_timestamp: Some(Time(note.at)),
        count: Some(1),
        ..Default::default()
    };
    api.create(&PostParams::default(), &event).await?;
    ledger.wrote(id, name, 1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(message: &str) -> Identity {
        Identity {
            uid: "u".into(),
            namespace: "default".into(),
            name: "web".into(),
            kind: EventKind::Normal,
            reason: "Started",
            message: message.into(),
        }
    }

    #[test]
    fn the_same_event_is_counted() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        assert_eq!(ledger.next(&id("a"), now), Step::Create);
        ledger.wrote(id("a"), "web.1".into(), 1);
        assert_eq!(
            ledger.next(&id("a"), now),
            Step::Count {
                name: "web.1".into(),
                count: 2
            }
        );
        assert_eq!(ledger.next(&id("b"), now), Step::Create);
    }

    #[test]
    fn an_object_that_records_too_much_is_cut_off_and_recovers() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let passed = (0..100)
            .filter(|i| ledger.next(&id(&i.to_string()), now) != Step::Drop)
            .count();
        assert_eq!(passed, 25);
        assert_eq!(ledger.next(&id("x"), now + REFILL), Step::Create);
        assert_eq!(ledger.next(&id("y"), now + REFILL), Step::Drop);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        for i in 0..REMEMBERED + 10 {
            let id = id(&i.to_string());
            ledger.next(&id, now);
            ledger.wrote(id, format!("e{i}"), 1);
        }
        assert_eq!(ledger.known.len(), REMEMBERED);
    }
}
