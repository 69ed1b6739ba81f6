//! Carries a run out: lets the clients come in, says when it begins, waits for its end.

use std::{
    cell::Cell,
    future::pending,
    rc::Rc,
    time::{Duration, Instant},
};

use actix_web::rt::{
    self,
    task::JoinHandle,
    time::{sleep, sleep_until, timeout},
};
use futures_util::{StreamExt, TryStreamExt, future::join_all, stream};
use uuid::Uuid;

use super::{
    course::Course,
    fault::Fault,
    member::{MAX_MESSAGE, Member, Shared},
    pacer::Pacer,
    plan::{Dialect, Plan},
    process::{Process, Usage},
    progress::Progress,
    report::{Report, Used},
};
use crate::{
    client::{
        address::SocketUrl,
        transport::{self, TlsError},
        watched::Ended,
    },
    ids::ClientId,
};

/// How many clients come in at the same time.
const COMING_IN: usize = 64;
/// So much silence means that nothing more comes.
const QUIET: Duration = Duration::from_millis(200);
/// For that silence is waited no longer, where others act in the room.
const QUIET_WITHIN: Duration = Duration::from_secs(5);
/// So much silence means that stalled clients that read again come no further.
const CATCH_UP_QUIET: Duration = Duration::from_secs(10);
/// What the kernel keeps of what stalled clients do not read, or as little as it can.
const LITTLE_BUFFER: u32 = 4 << 10;
/// How often is looked whether something has come about of which nobody tells.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long connections may take to close.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// One run, of which some has been done.
pub struct Run {
    shared: Rc<Shared>,
    http: awc::Client,
    /// By which stalled clients come in.
    little: awc::Client,
    url: SocketUrl,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    progress: Progress,
    came_in: Cell<usize>,
}

/// What was found.
pub struct Found {
    pub report: Report,
    /// Why the run is not complete.
    pub missing: Vec<String>,
}

impl Run {
    /// # Errors
    ///
    /// The URL asks for TLS, and this system trusts nobody.
    pub fn new(plan: Plan, url: &SocketUrl, timeout: Option<Duration>) -> Result<Self, TlsError> {
        let (secure, ended) = (url.is_secure(), Ended::default());
        let http = transport::client(secure, &ended)?;
        let little = match plan.stalled {
            0 => http.clone(),
            _ => transport::client_with_little_buffer(secure, &ended, LITTLE_BUFFER)?,
        };
        Ok(Self {
            shared: Rc::new(Shared::new(Course::new(plan))),
            http,
            little,
            url: url.clone(),
            timeout,
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            progress: Progress::new(),
            came_in: Cell::default(),
        })
    }

    /// Runs it all, and measures a process meanwhile.
    ///
    /// # Errors
    ///
    /// A sentence, where it does not come to a beginning.
    pub async fn run(self, process: Option<&Process>) -> Result<Found, String> {
        let members = self.gather().await?;
        let before = process.map(Process::usage).transpose();
        let before =
            before.map_err(|err| format!("the server's process cannot be measured: {err}"))?;
        let mut missing: Vec<String> = self.measure().await.err().into_iter().collect();
        let took = self.shared.course.borrow().took(Instant::now());
        let used = used(process, before.as_ref());
        if missing.is_empty() {
            missing.extend(self.catch_up().await.err());
        }
        if missing.is_empty() {
            missing.extend(self.await_quiet().await.err());
        }
        missing.extend(self.shared.course.borrow().shortcomings());
        let report = Report::new(&self.shared.course.borrow(), took, missing.is_empty(), used);
        self.shared.leave();
        let _ = timeout(LEAVE_WITHIN, join_all(members)).await;
        Ok(Found { report, missing })
    }

    /// Lets all clients come in, until each of them knows of all and the room is at rest.
    async fn gather(&self) -> Result<Vec<JoinHandle<()>>, String> {
        let clients = self.plan().clients();
        self.progress.begin("connecting", clients);
        let gathered = async {
            let members = self.come_in().await?;
            while self.silence() < QUIET || self.missing().is_some() {
                sleep(LOOK_EVERY).await;
            }
            Ok(members)
        };
        let came_in = || match self.came_in.get() {
            0 => String::new(),
            count => format!(" ({count} of {clients} clients are in)"),
        };
        tokio::select! {
            gathered = gathered => gathered.map_err(|fault: Fault| format!("{fault}{}", came_in())),
            fault = self.fault() => Err(format!("{fault}{}", came_in())),
            () = until(self.deadline) => Err(self.too_late(self.missing_at_the_beginning())),
        }
    }

    async fn come_in(&self) -> Result<Vec<JoinHandle<()>>, Fault> {
        let coming = stream::iter(0..self.plan().clients()).map(|client| self.enter(client));
        coming.buffer_unordered(COMING_IN).try_collect().await
    }

    async fn enter(&self, client: usize) -> Result<JoinHandle<()>, Fault> {
        let url = self.url.as_str();
        let (stalled, dialect) = {
            let course = self.shared.course.borrow();
            (course.parts()[client].stalled, course.plan().dialect)
        };
        let http = if stalled { &self.little } else { &self.http };
        let opened = match dialect {
            Dialect::Classic => transport::open_classic(http, url, MAX_MESSAGE).await,
            Dialect::V1 => {
                let id = ClientId(Uuid::new_v4());
                transport::open(http, url, id, MAX_MESSAGE).await
            }
        };
        let member = Member::new(client, self.shared.clone(), opened.map_err(Fault::Lost)?);
        self.came_in.update(|count| count + 1);
        self.progress.reach(self.came_in.get() as u64);
        Ok(rt::spawn(member))
    }

    /// Lets the writers act until all is done.
    async fn measure(&self) -> Result<(), String> {
        let plan = self.plan();
        self.progress.begin("actions", plan.actions);
        self.shared.stall();
        let begun = Instant::now();
        self.shared.course.borrow_mut().begin(begun);
        let pacer = Pacer::start(&plan, begun);
        self.shared.wake_writers();
        let watched = async {
            loop {
                sleep(LOOK_EVERY).await;
                self.progress.reach(self.shared.course.borrow().in_effect());
                if self.shared.course.borrow().is_stuck(Instant::now()) {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = self.over() => Ok(()),
            fault = self.fault() => Err(fault.to_string()),
            () = self.let_go(pacer.as_ref()) => Ok(()),
            () = watched => Err(Fault::Stuck.to_string()),
            () = until(self.deadline) => Err(self.too_late("the run was not done".to_owned())),
        }
    }

    /// Lets actions go as they become due.
    async fn let_go(&self, pacer: Option<&Pacer>) {
        let Some(pacer) = pacer else {
            return pending().await;
        };
        loop {
            pacer.due().await;
            self.shared.course.borrow_mut().allot(Instant::now());
            self.shared.wake_writers();
        }
    }

    /// Lets stalled clients read again, until each is at the last state or turns out to be dropped.
    async fn catch_up(&self) -> Result<(), String> {
        if self.plan().stalled == 0 {
            return Ok(());
        }
        self.shared.go_on();
        let since = Instant::now();
        let settled = async {
            let left = || self.shared.course.borrow().stalled().left();
            while left() > 0 && self.silence().min(since.elapsed()) < CATCH_UP_QUIET {
                sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = settled => Ok(()),
            fault = self.fault() => Err(fault.to_string()),
            () = until(self.deadline) => Err(self.too_late("stalled clients did not catch up".to_owned())),
        }
    }

    /// Waits for what comes too late to be right.
    async fn await_quiet(&self) -> Result<(), String> {
        let quiet = async {
            while self.silence() < QUIET {
                sleep(QUIET.saturating_sub(self.silence())).await;
            }
        };
        tokio::select! {
            _ = timeout(QUIET_WITHIN, quiet) => Ok(()),
            fault = self.fault() => Err(fault.to_string()),
        }
    }

    async fn over(&self) {
        while !self.shared.course.borrow().is_over() {
            self.shared.over.notified().await;
        }
    }

    async fn fault(&self) -> Fault {
        loop {
            if let Some(fault) = self.shared.fault() {
                return fault;
            }
            self.shared.failed.notified().await;
        }
    }

    fn plan(&self) -> Plan {
        self.shared.course.borrow().plan().clone()
    }

    fn silence(&self) -> Duration {
        self.shared.course.borrow().silence(Instant::now())
    }

    fn missing(&self) -> Option<String> {
        self.shared.course.borrow().missing()
    }

    fn missing_at_the_beginning(&self) -> String {
        let (came_in, clients) = (self.came_in.get(), self.plan().clients());
        if came_in < clients {
            return format!("{came_in} of {clients} clients came in");
        }
        let at_rest = || "the room did not come to rest: others act in it".to_owned();
        self.missing().unwrap_or_else(at_rest)
    }

    fn too_late(&self, what: String) -> String {
        let timeout = self.timeout.unwrap_or_default();
        format!("within {} {what}", humantime::format_duration(timeout))
    }
}

fn used(process: Option<&Process>, before: Option<&Usage>) -> Option<Used> {
    let (before, after) = (before?, process?.usage().ok()?);
    Some(Used {
        cpu: after.cpu_since(before),
        resident_bytes: after.resident_bytes,
    })
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
