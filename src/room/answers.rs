//! What a batch has for those who asked: verdicts as each is told them.
//!
//! Of one batch a session is told its errors, then its ack; the state comes after them. An error
//! never comes after an ack that covers it: the ack names no number that is not among the verdicts.

use std::collections::{HashMap, hash_map::Entry};

use actix_web::web::BytesMut;
use tokio::sync::oneshot;

use super::{
    audience::{Answers, Audience, Member, Origin, Peer},
    messages::{Outcome, Seen},
    shown::Shown,
};
use crate::{
    deliver::{Answer, Underway},
    framing,
    ids::{OwnerId, Revision, SessionId},
    protocol::{Dialect, classic, v1},
    rejection::Rejection,
    replica::{Asked, Number, Retry, Verdict, Views, gap},
    settled::{First, Settled},
};

/// An action on its way, and whom to answer.
pub struct Queued<A> {
    pub from: Asker,
    pub bytes: usize,
    pub asked: Asked<A>,
}

/// Whom to answer.
pub enum Asker {
    Session(Origin),
    Request(oneshot::Sender<Outcome>),
}

/// What the room is once the batch is committed.
pub struct Committed<'a> {
    pub settled: &'a Settled,
    pub shown: &'a Shown,
    /// What the batch's entries made, and the revision before them; empty where nothing was committed.
    pub views: &'a Views,
    pub before: Revision,
}

/// Answers each action by its verdict.
pub fn answer<A>(
    owner: OwnerId,
    audience: &mut Audience,
    committed: &Committed<'_>,
    queued: Vec<Queued<A>>,
    verdicts: Vec<Verdict>,
) -> Answers {
    let mut replies = Replies::default();
    for (queued, verdict) in queued.into_iter().zip(verdicts) {
        let number = queued.asked.number;
        match queued.from {
            // Whoever asked may have gone.
            Asker::Request(reply) => drop(reply.send(committed.outcome(number, verdict))),
            Asker::Session(from) => {
                if let Some(member) = audience.member(from.session) {
                    let reply = replies.of(from, member);
                    reply.done.add(Underway {
                        actions: 1,
                        bytes: queued.bytes,
                    });
                    reply.take(committed, number, verdict);
                }
            }
        }
    }
    replies.into_answers(owner, audience, committed)
}

impl Committed<'_> {
    fn outcome(&self, number: Option<Number>, verdict: Verdict) -> Outcome {
        let made = match verdict {
            Verdict::Accepted(rev) => {
                let nth = (rev.0 - self.before.0 - 1) as usize;
                let made = self.seen(rev, self.views.get(nth));
                return Outcome::Accepted {
                    made,
                    replayed: false,
                };
            }
            Verdict::Refused(why) => {
                let replayed = false;
                return Outcome::Refused { why, replayed };
            }
            Verdict::Retry(retry) => return Outcome::Retry(retry),
            Verdict::Repeated => match self.first(number) {
                First::Refused(why) => {
                    let replayed = true;
                    return Outcome::Refused { why, replayed };
                }
                First::Accepted(Some((rev, value))) => self.seen(rev, value.as_bytes()),
                First::Accepted(None) => self.seen(self.shown.position().rev, self.shown.view()),
            },
        };
        Outcome::Accepted {
            made,
            replayed: true,
        }
    }

    fn seen(&self, rev: Revision, value: &[u8]) -> Seen {
        Seen {
            epoch: self.shown.position().epoch,
            rev,
            value: value.to_vec(),
        }
    }

    /// What was said to a number that was settled before.
    fn first(&self, number: Option<Number>) -> First {
        number.map_or(First::Accepted(None), |Number { client, n }| {
            self.settled.first(client, n)
        })
    }
}

/// What the sessions are told, each of them once.
#[derive(Default)]
struct Replies {
    places: HashMap<SessionId, usize>,
    replies: Vec<Reply>,
}

struct Reply {
    from: Origin,
    dialect: Dialect,
    done: Underway,
    errors: BytesMut,
    /// The highest number that is settled by now; 0: none of its.
    settled: u64,
    /// What was not taken, by its number.
    retries: Vec<(u64, Retry)>,
}

impl Replies {
    fn of(&mut self, from: Origin, member: &Member) -> &mut Reply {
        let new = self.replies.len();
        let last = self.replies.last().map(|last| last.from.session);
        let place = match last == Some(from.session) {
            // What one session submitted comes in a row.
            true => new - 1,
            false => match self.places.entry(from.session) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => *unknown.insert(new),
            },
        };
        if place == new {
            self.replies.push(Reply {
                from,
                dialect: member.peer.dialect(),
                done: Underway::default(),
                errors: BytesMut::new(),
                settled: 0,
                retries: Vec::new(),
            });
        }
        &mut self.replies[place]
    }

    fn into_answers(
        self,
        owner: OwnerId,
        audience: &mut Audience,
        committed: &Committed<'_>,
    ) -> Answers {
        let rev = committed.shown.position().rev;
        let mut answers = Answers::default();
        for mut reply in self.replies {
            let Some(member) = audience.member(reply.from.session) else {
                continue;
            };
            if reply.settled > 0 {
                member.acked = member.acked.max(reply.settled);
                framing::push_text(v1::ack(member.acked, rev).as_bytes(), &mut reply.errors);
            }
            let next = match member.peer {
                Peer::Classic => None,
                Peer::V1 { client, .. } => Some(committed.settled.last(client) + 1),
            };
            push_retries(&reply.retries, next.unwrap_or(1), &mut reply.errors);
            let answer = Answer {
                session: reply.from.session,
                done: reply.done,
                frames: reply.errors.freeze(),
                next,
            };
            answers.add(owner, reply.from.worker, answer);
        }
        answers
    }
}

impl Reply {
    fn take(&mut self, committed: &Committed<'_>, number: Option<Number>, verdict: Verdict) {
        match verdict {
            Verdict::Accepted(_) => {}
            Verdict::Refused(why) => self.error(&why, number),
            Verdict::Repeated => {
                if let First::Refused(why) = committed.first(number) {
                    self.error(&why, number);
                }
            }
            Verdict::Retry(retry) => return self.retry(retry, number),
        }
        self.settled = self.settled.max(number.map_or(0, |number| number.n));
    }

    fn error(&mut self, why: &Rejection, number: Option<Number>) {
        let json = match self.dialect {
            Dialect::Classic => classic::error(why),
            Dialect::V1 => v1::error(why, number.map(|number| number.n)),
        };
        framing::push_text(json.as_bytes(), &mut self.errors);
    }

    fn retry(&mut self, retry: Retry, number: Option<Number>) {
        match number {
            Some(Number { n, .. }) => self.retries.push((n, retry)),
            None => self.error(&retry.why, number),
        }
    }
}

/// What was not taken when it was judged: one that came again in time and is settled by now is left
/// out, and the others go on from the number that is expected now.
fn push_retries(retries: &[(u64, Retry)], expected: u64, wire: &mut BytesMut) {
    for (n, Retry { why, after, .. }) in retries.iter().filter(|(n, _)| *n >= expected) {
        let json = match &*why.code {
            "gap" if *n > expected => v1::retry(*n, expected, &gap(*n, expected), *after),
            _ => v1::retry(*n, expected, why, *after),
        };
        framing::push_text(json.as_bytes(), wire);
    }
}

/// A single message for one session, and the number that is taken next from its client.
pub fn message(from: Origin, json: &str, next: Option<u64>) -> Answer {
    Answer {
        session: from.session,
        done: Underway::default(),
        frames: framing::text(json),
        next,
    }
}
