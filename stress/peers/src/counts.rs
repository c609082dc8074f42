//! What was answered: the few of the server's metrics that an audit of the ledger needs.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::App;

#[derive(Default)]
pub(crate) struct Counts {
    by_status: [[AtomicU64; STATUSES.len()]; ENDPOINTS.len()],
    late: AtomicU64,
}

const ENDPOINTS: [&str; 3] = ["transacoes", "extrato", "other"];
/// The last stands for all others.
const STATUSES: [u16; 5] = [200, 404, 422, 503, 400];

pub(crate) async fn count<B: Send + Sync + 'static>(
    State(app): State<Arc<App<B>>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let endpoint = ENDPOINTS.iter().position(|name| path.ends_with(name)).unwrap_or(ENDPOINTS.len() - 1);
    let unanswered = Unanswered(&app.counts.late);
    let response = next.run(request).await;
    mem::forget(unanswered);
    let status = response.status().as_u16();
    let status = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1);
    app.counts.by_status[endpoint][status].fetch_add(1, Ordering::Relaxed);
    response
}

/// Dropped with the work of a connection that ended: what was asked there may be done all the same.
struct Unanswered<'a>(&'a AtomicU64);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Format: Prometheus documentation, "Exposition formats".
impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "# TYPE rinha_responses_total counter")?;
        for (endpoint, counts) in ENDPOINTS.iter().zip(&self.by_status) {
            for (status, count) in STATUSES.iter().zip(counts) {
                let count = count.load(Ordering::Relaxed);
                writeln!(out, r#"rinha_responses_total{{endpoint="{endpoint}",status="{status}"}} {count}"#)?;
            }
        }
        writeln!(out, "# TYPE rinha_answers_late_total counter")?;
        writeln!(out, "rinha_answers_late_total {}", self.late.load(Ordering::Relaxed))
    }
}
