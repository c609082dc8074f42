//! HTTP/1.1 on the wire: reads request heads and chunked bodies, writes responses. Knows no route.

pub mod head;
pub mod uri;
pub mod chunked;
pub mod response;
