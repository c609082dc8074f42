//! CORE, simulation only: follows every transaction from its request to the ledger, and judges the answers by it.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::now::Now;
use crate::sim::check::{Check, Violation};
use crate::sim::postgres::{Ledger, Postgres, STATEMENT_ROWS, statement_text};
use crate::sim::scene::Scene;

/// Names one transaction in all of its world; the description of the transaction carries it.
pub(crate) type Tag = usize;

/// What became of all transactions.
#[derive(Default)]
pub(crate) struct Audit {
    fates: Vec<Fate>,
    /// The rows of each account in the ledger, oldest first.
    histories: BTreeMap<i32, Vec<usize>>,
    /// When each row of the ledger was read here, in monotonic microseconds: at its commit or later.
    read_at_us: Vec<u64>,
    rows_read: usize,
    batches_read: usize,
    failures_read: usize,
    /// By session: batches that failed for it, though they could go to another one.
    spoilt_batches: BTreeMap<usize, usize>,
}

/// What became of one transaction.
#[derive(Default)]
struct Fate {
    /// Runs that were committed, also of a refused debit.
    committed_runs: usize,
    /// Batches it was in that came to nothing.
    failed_attempts: usize,
    /// Batches it was in whose session was to blame.
    spoilt_runs: usize,
    /// It failed with no other call before it in its batch, and not for its session.
    has_failed_first: bool,
    /// It failed in a batch that is not over.
    is_failing: bool,
    /// How many messages the database had read when it failed or was rolled back for the first time.
    first_failed_at: Option<u64>,
    /// Its row, and the position of that among those of its account.
    row: Option<(usize, usize)>,
    /// Its peer was told that nothing was done.
    was_denied: bool,
}

impl Audit {
    /// The tag of a new transaction.
    pub(crate) fn next_tag(&mut self) -> Tag {
        self.fates.push(Fate::default());
        self.fates.len() - 1
    }

    /// How many transactions of this account are committed.
    pub(crate) fn len(&self, account: i32) -> usize {
        self.histories.get(&account).map_or(0, Vec::len)
    }

    /// How many of them are among the first `rows` of the ledger.
    pub(crate) fn len_within(&self, account: i32, rows: usize) -> usize {
        self.histories.get(&account).map_or(0, |history| history.partition_point(|&row| row < rows))
    }

    /// How many transactions of this account a statement shows at least that is asked for now.
    pub(crate) fn statement_floor(&self, account: i32, config: &Config, now: Now) -> usize {
        if config.database_read.is_none() {
            return self.len(account);
        }
        let staleness_max_us = config.read_staleness_max_ms * 1_000;
        let Some(since_us) = now.monotonic_us.checked_sub(staleness_max_us) else { return 0 };
        let rows = self.histories.get(&account).map_or(&[][..], Vec::as_slice);
        rows.partition_point(|&row| self.read_at_us[row] <= since_us)
    }

    /// How many transactions were committed.
    pub(crate) fn rows(&self) -> usize {
        self.rows_read
    }

    /// Looks at what the database has done since the last time.
    pub(crate) fn read(&mut self, postgres: &Postgres, config: &Config, scene: &Scene) {
        if let Some(offence) = postgres.offences.first() {
            scene.violate(offence.check, &*offence.text);
        }
        let rows = &postgres.ledger.rows;
        while let Some(entry) = rows.get(self.rows_read) {
            let history = self.histories.entry(entry.account).or_default();
            let before_cents = history.last().map_or(0, |&row| rows[row].balance_cents);
            let limit_cents = postgres.ledger.accounts.get(&entry.account).map_or(0, |&(limit, _)| limit);
            if before_cents + entry.value_cents != entry.balance_cents {
                scene.violate(
                    Check::Ledger,
                    format!("the balance behind {} is not the sum of its ledger", entry.description),
                );
            }
            if entry.value_cents < 0 && entry.balance_cents < -limit_cents {
                scene.violate(Check::Ledger, format!("{} passes the limit", entry.description));
            }
            history.push(self.rows_read);
            match tag_of(&entry.description).and_then(|tag| self.fates.get_mut(tag)) {
                None => scene.violate(Check::AskedFor, format!("nobody asked for {}", entry.description)),
                Some(fate) if fate.row.is_some() => {
                    scene.violate(Check::Once, format!("{} is in the ledger twice", entry.description));
                }
                Some(fate) if fate.was_denied => scene.violate(
                    Check::Denied,
                    format!(
                        "{} is in the ledger, though its answer was that nothing was done",
                        entry.description
                    ),
                ),
                Some(fate) => fate.row = Some((self.rows_read, history.len() - 1)),
            }
            self.rows_read += 1;
            self.read_at_us.push(scene.now().monotonic_us);
        }
        while let Some(failure) = postgres.failures_seen.get(self.failures_read) {
            self.failures_read += 1;
            if let Some(fate) = tag_of(&failure.description).and_then(|tag| self.fates.get_mut(tag)) {
                fate.has_failed_first |= failure.is_first && !failure.is_spoilt;
                fate.is_failing = true;
                if !failure.is_read_only {
                    fate.first_failed_at.get_or_insert(failure.at);
                }
            }
        }
        while let Some(batch) = postgres.batches.get(self.batches_read) {
            self.batches_read += 1;
            if batch.calls > 0 {
                let end = if batch.is_committed { "commits" } else { "rolls back" };
                scene.tell(|| format!("PostgreSQL {end} {:?}, skipped {:?}", batch.ran, batch.skipped));
            }
            if batch.calls > config.batch_calls_max {
                scene.violate(Check::BatchSize, format!("a batch of {} calls", batch.calls));
            }
            let mut is_to_be_left = false;
            for description in batch.ran.iter().chain(&batch.skipped) {
                let Some(fate) = tag_of(description).and_then(|tag| self.fates.get_mut(tag)) else {
                    continue;
                };
                let is_again = fate.first_failed_at.is_some_and(|at| at < batch.began_at);
                if is_again && batch.calls > 1 && batch.is_synced {
                    scene.violate(
                        Check::Alone,
                        format!("{description} was rolled back and ran again in company"),
                    );
                }
                // A batch of a spoilt session may end after the next run of its call, which began with the error.
                let is_attempt = !batch.is_spoilt && !batch.may_be_spoilt;
                if is_attempt && fate.failed_attempts >= usize::from(config.attempts_max) {
                    scene.violate(Check::Attempts, format!("{description} runs too often"));
                }
                if batch.is_committed {
                    fate.committed_runs += 1;
                    if fate.committed_runs > 1 {
                        scene.violate(Check::Once, format!("{description} was run and committed twice"));
                    }
                } else {
                    if batch.is_spoilt {
                        fate.spoilt_runs += 1;
                        // In company, alone, and one more that finds it to blame.
                        if fate.spoilt_runs > config.lanes + 2 {
                            scene.violate(
                                Check::Spoilt,
                                format!("{description} is given to spoilt sessions without end"),
                            );
                        }
                        is_to_be_left |= fate.spoilt_runs <= config.lanes;
                    } else if is_attempt {
                        fate.failed_attempts += 1;
                    }
                    fate.is_failing = false;
                    // Behind a server that takes no writes, the batch goes on as one.
                    if !batch.is_read_only {
                        fate.first_failed_at.get_or_insert(batch.ended_at);
                    }
                }
            }
            if is_to_be_left {
                self.note_spoilt(batch.session, config, scene);
            }
        }
    }

    /// A batch has failed for its session, which is to be left.
    fn note_spoilt(&mut self, session: usize, config: &Config, scene: &Scene) {
        let batches = self.spoilt_batches.entry(session).or_default();
        *batches += 1;
        if *batches > config.batches_in_flight_max {
            scene.violate(Check::Spoilt, format!("the spoilt session {session} is kept"));
        }
    }

    /// Whether the balances are the sums of the ledger.
    pub(crate) fn check_balances(&self, ledger: &Ledger, scene: &Scene) {
        for (account, &(_, balance_cents)) in &ledger.accounts {
            let rows = self.histories.get(account).map_or(&[][..], Vec::as_slice);
            let sum_cents: i64 = rows.iter().map(|&row| ledger.rows[row].value_cents).sum();
            if sum_cents != balance_cents {
                scene.violate(
                    Check::Ledger,
                    format!("the balance of account {account} is not the sum of its ledger"),
                );
            }
        }
    }

    /// Judges a 200 for a transaction that was asked for when `floor` of its account were committed.
    pub(crate) fn check_accepted(
        &self,
        tag: Tag,
        floor: usize,
        body: &str,
        ledger: &Ledger,
    ) -> Result<(), Violation> {
        let Some((row, position)) = self.fates[tag].row else {
            return Err(Violation::new(Check::Accepted, "it is not in the ledger"));
        };
        if position < floor {
            return Err(Violation::new(Check::Accepted, "it is in the ledger before it was asked for"));
        }
        let entry = &ledger.rows[row];
        let limit_cents = ledger.accounts.get(&entry.account).map_or(0, |&(limit, _)| limit);
        let expected = format!(r#"{{"limite":{limit_cents},"saldo":{}}}"#, entry.balance_cents);
        if body == expected {
            Ok(())
        } else {
            Err(Violation::new(Check::Accepted, format!("the ledger says {expected}")))
        }
    }

    /// Judges a refused debit: at some moment since it was asked for, it would have passed the limit.
    pub(crate) fn check_refused(
        &mut self,
        tag: Tag,
        account: i32,
        value_cents: i64,
        floor: usize,
        ledger: &Ledger,
    ) -> Result<(), Violation> {
        self.check_denied(tag)?;
        let (limit_cents, _) = ledger.accounts.get(&account).copied().unwrap_or_default();
        let rows = self.histories.get(&account).map_or(&[][..], Vec::as_slice);
        let would_pass = |len: usize| {
            let balance_cents = if len == 0 { 0 } else { ledger.rows[rows[len - 1]].balance_cents };
            value_cents < 0 && balance_cents + value_cents < -limit_cents
        };
        if (floor..=rows.len()).any(would_pass) {
            Ok(())
        } else {
            Err(Violation::new(Check::Refused, "it would not have passed the limit"))
        }
    }

    /// Judges an answer which says that nothing was done; from now on that must stay so.
    pub(crate) fn check_denied(&mut self, tag: Tag) -> Result<(), Violation> {
        let fate = &mut self.fates[tag];
        fate.was_denied = true;
        if fate.row.is_some() { Err(Violation::new(Check::Denied, "it is in the ledger")) } else { Ok(()) }
    }

    /// Judges an answer which says that PostgreSQL has refused it: by itself, or too often. `unseen_attempts` never
    /// came that far.
    pub(crate) fn check_failed(
        &mut self,
        tag: Tag,
        unseen_attempts: usize,
        config: &Config,
    ) -> Result<(), Violation> {
        self.check_denied(tag)?;
        let fate = &self.fates[tag];
        let failing = usize::from(fate.is_failing);
        let attempts = fate.failed_attempts + failing + unseen_attempts;
        let has_met_new_session = fate.spoilt_runs + failing > config.lanes;
        if fate.has_failed_first || has_met_new_session || attempts >= usize::from(config.attempts_max) {
            Ok(())
        } else {
            Err(Violation::new(Check::Failed, "it did not fail by itself"))
        }
    }

    /// Judges a statement: it is the account as it was at some moment since it was asked for, or if a standby may answer, since
    /// a while before.
    pub(crate) fn check_statement(
        &self,
        account: i32,
        floor: usize,
        body: &str,
        config: &Config,
        ledger: &Ledger,
    ) -> Result<(), Violation> {
        let rows = self.histories.get(&account).map_or(&[][..], Vec::as_slice);
        let newest = body.split(r#""descricao": ""#).nth(1).and_then(|rest| rest.split('"').next());
        let len = match newest {
            None => 0,
            Some(description) => rows
                .iter()
                .rposition(|&row| ledger.rows[row].description == description)
                .map(|position| position + 1)
                .ok_or_else(|| {
                    Violation::new(
                        Check::Statement,
                        format!("{description} is not in the ledger of its account"),
                    )
                })?,
        };
        if len < floor {
            let check = if config.database_read.is_some() { Check::Fresh } else { Check::Statement };
            let text = format!("it shows {len} transactions, though {floor} were committed before");
            return Err(Violation::new(check, text));
        }
        let (limit_cents, _) = ledger.accounts.get(&account).copied().unwrap_or_default();
        let newest = rows[..len].iter().rev().take(STATEMENT_ROWS).map(|&row| &ledger.rows[row]);
        let balance_cents = newest.clone().next().map_or(0, |entry| entry.balance_cents);
        let expected = statement_text(limit_cents, balance_cents, newest);
        if body == expected {
            Ok(())
        } else {
            Err(Violation::new(Check::Statement, format!("the ledger says {expected}")))
        }
    }
}

/// The tag that a description carries behind its first character.
fn tag_of(description: &str) -> Option<Tag> {
    let mut chars = description.chars();
    chars.next()?;
    chars.as_str().parse().ok()
}
