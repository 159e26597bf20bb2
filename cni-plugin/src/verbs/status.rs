//! STATUS: whether ADD could be served now.

use crate::{
    attachments::Attachments,
    kernel::attach,
    node::NodeConfig,
    spec::{
        config::Config,
        error::{CniError, Code},
    },
};

pub fn status(config: &Config) -> Result<(), CniError> {
    let not_available = |e: CniError| CniError::new(Code::NotAvailable, e.msg).details(e.details);
    let attachments = Attachments::open(&config.paths)
        .map_err(CniError::from)
        .map_err(not_available)?;
    let state = attachments.store().snapshot().map_err(CniError::from);
    let state = state.map_err(not_available)?;
    if let Err(e) = attach::ready(&config.paths).map_err(CniError::from) {
        // Pods are attached, but the programs and maps that they hang on are gone.
        return Err(match state.attachments.is_empty() {
            true => not_available(e),
            false => CniError::new(Code::LimitedConnectivity, e.msg),
        });
    }
    let node = NodeConfig::read(&config.paths.node_json()).map_err(CniError::from);
    let node = node.map_err(not_available)?;
    match state.choose(&node.pod_cidrs, &[]) {
        Ok(_) => Ok(()),
        Err(e) => Err(not_available(e.into())),
    }
}
