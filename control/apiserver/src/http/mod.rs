//! The HTTP side: connections, content negotiation, answers.

pub mod negotiate;
pub mod reply;
pub mod serve;
