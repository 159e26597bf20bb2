//! The HTTP side: connections, content negotiation, answers.

pub mod negotiate;
pub mod relay;
pub mod reply;
pub mod serve;
