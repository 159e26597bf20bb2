//! Keeps the pods in step with the plugin's journal, and the journal with the pods that run.

use std::sync::Arc;

use rhumb_cni::attachments::{Attachments, AttachmentsError, Repair};
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::{install, metrics::Metrics, runtime};

#[derive(Clone)]
pub struct Keeper {
    pub attachments: Attachments,
    /// `--cri-endpoint`: the container runtime knows whose a sandbox is.
    pub cri: Option<String>,
    pub tokio: Handle,
    pub metrics: Arc<Metrics>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error(transparent)]
    Attachments(#[from] AttachmentsError),
    #[error("{lost}, and it can't be asked: {problem}")]
    Runtime {
        lost: AttachmentsError,
        problem: String,
    },
}

impl KeepError {
    /// Whether the journal is known to be sound all the same.
    pub fn leaves_it_sound(&self) -> bool {
        // The journal was looked at, and then single pods were in the way.
        matches!(self, KeepError::Attachments(AttachmentsError::Repair(_)))
    }
}

impl Keeper {
    /// [`Attachments::repair`], with a journal made anew where it is damaged or lost. Blocks; not for a
    /// thread of the runtime's.
    pub fn repair(&self) -> Result<Repair, KeepError> {
        match self.attachments.repair() {
            Err(lost) if lost.is_loss() => {
                self.recover(&lost)?;
                Ok(self.attachments.repair()?)
            }
            done => Ok(done?),
        }
    }

    fn recover(&self, lost: &AttachmentsError) -> Result<(), KeepError> {
        let recovery = match self.attachments.recover(install::NETWORK, None) {
            Err(AttachmentsError::Unnamed(keys)) => {
                let described = runtime::describe(self.cri.as_deref(), &keys);
                let pods = self.tokio.block_on(described);
                let pods = pods.map_err(|problem| KeepError::Runtime {
                    lost: AttachmentsError::Unnamed(keys),
                    problem,
                })?;
                self.attachments.recover(install::NETWORK, Some(&pods))?
            }
            done => done?,
        };
        let Some(recovery) = recovery else {
            // Another thread was first.
            return Ok(());
        };
        self.metrics.journals_recovered.inc();
        warn!(
            problem = %lost,
            attachments = recovery.attachments,
            kept = recovery.kept.map(|path| path.display().to_string()),
            "the plugin's journal was made anew"
        );
        Ok(())
    }

    /// At the start: gives the pods this load's programs, and what they lack of entries: all of them where
    /// the bpf file system was mounted anew. Returns whether the journal can be gone by.
    pub fn start(&self) -> bool {
        match self.repair() {
            Ok(repair) => {
                if repair != Repair::default() {
                    info!(?repair, "pods put in step with the plugin's journal");
                }
                true
            }
            // The pods that stand in the way keep what they have; the others are not to wait for it.
            Err(error) => {
                let trusted = error.leaves_it_sound();
                warn!(
                    error = format!("{:#}", anyhow::Error::from(error)),
                    "pods are not all in step with the plugin's journal"
                );
                trusted
            }
        }
    }
}
