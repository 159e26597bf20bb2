//! OpenAPI documents: made once, when the first client asks.
