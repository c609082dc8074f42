//! CORE: the reader, a lane to a standby: which statements it answers, and which are sent on to the primary.

use crate::engine::freshness::Stale;
use crate::engine::lane::LaneEvent;
use crate::engine::ticket::Ticket;
use crate::engine::{Engine, lane_of};

impl Engine {
    /// Answers the statements whose answers are young enough, and keeps all others to be sent on.
    pub(super) fn take_reader_events(&mut self, index: usize) {
        let now = self.context.now;
        let lane = &mut self.lanes[index];
        let mut problem = None;
        while let Some(event) = lane.poll_event(&self.context.config, now) {
            match event {
                LaneEvent::Position(position, _) => {
                    self.freshness.reader_is_at(position);
                    problem = self.freshness.check(&self.context.config, now).err();
                }
                LaneEvent::Answered(ticket, outcome) => {
                    if self.freshness.check(&self.context.config, now).is_ok() {
                        self.context.metrics.statements_read += 1;
                        self.clients.deliver(ticket.slot, outcome, &mut self.context);
                    } else {
                        self.sent_on.push(ticket);
                    }
                }
                LaneEvent::RunAgain(ticket) | LaneEvent::Unavailable(ticket, _) => self.sent_on.push(ticket),
                LaneEvent::Ready(_) => log::info!("the reader is ready"),
                // A standby's accounts and timeline may be old: only the primary's count.
                LaneEvent::Placed(_) | LaneEvent::Probed(_) => {}
                LaneEvent::Closed { reason, was_ready } => {
                    self.context.metrics.lane_closes += 1;
                    self.freshness.reader_is_at(None);
                    if was_ready {
                        lane.log_end_of_session(index, &reason, now);
                    }
                }
            }
        }
        if let Some(problem) = problem.and_then(Stale::problem) {
            lane.log_stale_standby(problem, now);
        }
    }

    /// Whether to ask the reader: it has a session that serves, and its last known position is recent enough.
    pub(super) fn can_read(&self, reader: usize) -> bool {
        self.lanes[reader].served_host().is_some()
            && self.lanes[reader].is_serving()
            && self.freshness.check(&self.context.config, self.context.now).is_ok()
    }

    /// Queues every statement that the reader could not answer on a lane to the primary, as if it had just arrived. Returns
    /// whether there was one.
    pub(super) fn send_on(&mut self) -> bool {
        self.reader().is_some_and(|reader| self.send_on_from(reader))
    }

    // Out of line, so that without a reader only the test above is paid for.
    #[inline(never)]
    fn send_on_from(&mut self, reader: usize) -> bool {
        if !self.can_read(reader) {
            self.sent_on.extend(std::iter::from_fn(|| self.queues[reader].pop()));
        }
        if self.sent_on.is_empty() {
            return false;
        }
        let mut sent_on = std::mem::take(&mut self.sent_on);
        for Ticket { slot, call, .. } in sent_on.drain(..) {
            self.context.metrics.statements_sent_on += 1;
            self.ask(lane_of(&call, self.context.config.lanes), slot, call);
        }
        self.sent_on = sent_on;
        true
    }
}
