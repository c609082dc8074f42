//! What the peers have in common: the challenge's API on axum, over any [`Bank`]. The peers differ in their bank alone.
//!
//! One thread runs all of it: an instance has 0.4 CPU, and more threads would only take turns on it.

#![allow(
    missing_docs,
    clippy::missing_errors_doc,
    reason = "three programs of this workspace, whose names say what they are: comments are for reasons, units and bounds"
)]

mod counts;
pub mod database;
mod request;
mod settings;

pub use request::{Kind, Transaction};
pub use settings::Settings;

use std::collections::BTreeSet;
use std::error::Error;
use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use counts::{Counts, count};

pub trait Bank: Send + Sync + 'static {
    /// Runs one transaction; returns when it is committed, or refused.
    fn transact(&self, transaction: Transaction)
    -> impl Future<Output = Result<Outcome, Unavailable>> + Send;
    fn statement(&self, client: i32) -> impl Future<Output = Result<String, Unavailable>> + Send;
    fn is_healthy(&self) -> impl Future<Output = bool> + Send;
    /// What is in its books, for who audits them; empty where a database tells it.
    fn books(&self) -> impl Future<Output = Result<String, Unavailable>> + Send {
        async { Ok(String::new()) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Committed; in cents.
    Done { limit: i64, balance: i64 },
    /// A debit past the limit; nothing was written.
    PastLimit,
}

/// The bank cannot say what became of a request, or has not begun it.
#[derive(Debug, Clone, Copy)]
pub struct Unavailable;

/// What failed goes to the log, and the client gets a 503.
impl<E: Error> From<E> for Unavailable {
    fn from(error: E) -> Unavailable {
        eprintln!("a call failed: {error}");
        Unavailable
    }
}

struct App<B> {
    bank: B,
    clients: BTreeSet<i32>,
    counts: Counts,
}

/// Serves the API over `bank`, whose clients are `clients`, until SIGTERM or SIGINT; then finishes what is in flight.
pub async fn serve<B: Bank>(bank: B, clients: BTreeSet<i32>, settings: &Settings) -> io::Result<()> {
    let app = Arc::new(App { bank, clients, counts: Counts::default() });
    let public = Router::new()
        .route("/clientes/{id}/transacoes", post(transact::<B>).fallback(not_allowed::<B>))
        .route("/clientes/{id}/extrato", get(statement::<B>).fallback(not_allowed::<B>))
        .route("/healthz", get(healthz::<B>))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "no such path") })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(&app), count::<B>))
        .with_state(Arc::clone(&app));
    let private =
        Router::new().route("/metrics", get(metrics::<B>)).route("/books", get(books::<B>)).with_state(app);

    let mut servers = JoinSet::new();
    if let Some(address) = &settings.metrics_listen {
        let listener = TcpListener::bind(address).await?;
        eprintln!("metrics on {}", listener.local_addr()?);
        servers.spawn(axum::serve(listener, private).with_graceful_shutdown(stopped()?).into_future());
    }
    for address in &settings.listen {
        let router = public.clone();
        if let Some(path) = address.strip_prefix("unix:") {
            let listener = UnixListener::bind(path)?;
            eprintln!("listening on {address}");
            servers.spawn(axum::serve(listener, router).with_graceful_shutdown(stopped()?).into_future());
        } else {
            let listener = TcpListener::bind(address).await?;
            eprintln!("listening on {}", listener.local_addr()?);
            servers.spawn(axum::serve(listener, router).with_graceful_shutdown(stopped()?).into_future());
        }
    }
    while let Some(ended) = servers.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    Ok(())
}

/// Ends with the first SIGTERM or SIGINT from now on.
fn stopped() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn transact<B: Bank>(State(app): State<Arc<App<B>>>, Path(id): Path<String>, body: Body) -> Response {
    let Some(client) = app.client(&id) else { return unknown_client() };
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    };
    let transaction = match Transaction::parse(client, &body) {
        Ok(transaction) => transaction,
        Err(request::Fault::Json) => return refuse(StatusCode::BAD_REQUEST, "the body is not JSON"),
        Err(request::Fault::Rule) => return refuse(StatusCode::UNPROCESSABLE_ENTITY, "not a transaction"),
    };
    match app.bank.transact(transaction).await {
        Ok(Outcome::Done { limit, balance }) => {
            as_json(StatusCode::OK, format!(r#"{{"limite":{limit},"saldo":{balance}}}"#))
        }
        Ok(Outcome::PastLimit) => refuse(StatusCode::UNPROCESSABLE_ENTITY, "past the limit"),
        Err(Unavailable) => unavailable(),
    }
}

async fn statement<B: Bank>(State(app): State<Arc<App<B>>>, Path(id): Path<String>) -> Response {
    let Some(client) = app.client(&id) else { return unknown_client() };
    match app.bank.statement(client).await {
        Ok(statement) => as_json(StatusCode::OK, statement),
        Err(Unavailable) => unavailable(),
    }
}

async fn healthz<B: Bank>(State(app): State<Arc<App<B>>>) -> Response {
    if app.bank.is_healthy().await { "Healthy".into_response() } else { unavailable() }
}

async fn metrics<B: Bank>(State(app): State<Arc<App<B>>>) -> String {
    app.counts.to_string()
}

async fn books<B: Bank>(State(app): State<Arc<App<B>>>) -> Response {
    app.bank.books().await.map_or_else(|Unavailable| unavailable(), IntoResponse::into_response)
}

async fn not_allowed<B: Bank>(
    State(app): State<Arc<App<B>>>,
    Path(id): Path<String>,
    method: Method,
) -> Response {
    match app.client(&id) {
        Some(_) => refuse(StatusCode::METHOD_NOT_ALLOWED, &format!("not with {method}")),
        None => unknown_client(),
    }
}

impl<B> App<B> {
    /// A plain decimal of a known client: no sign, no leading zero.
    fn client(&self, id: &str) -> Option<i32> {
        let is_plain = id.bytes().all(|byte| byte.is_ascii_digit()) && !id.starts_with('0');
        let client = id.parse().ok().filter(|_| is_plain)?;
        self.clients.contains(&client).then_some(client)
    }
}

fn as_json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], Bytes::from(body)).into_response()
}

fn refuse(status: StatusCode, why: &str) -> Response {
    as_json(status, json!({"erro": why}).to_string())
}

fn unknown_client() -> Response {
    refuse(StatusCode::NOT_FOUND, "no such client")
}

fn unavailable() -> Response {
    let refusal = refuse(StatusCode::SERVICE_UNAVAILABLE, "the bank cannot be asked");
    ([(header::RETRY_AFTER, "1")], refusal).into_response()
}

const BODY_BYTES_MAX: usize = 16 * 1024;
