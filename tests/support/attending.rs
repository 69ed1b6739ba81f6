//! Holds the conversations of `docs/protocol/` with the library's client: it plays the server.
//!
//! Each of a conversation's clients has a port of its own, so that it is known who comes.

use std::{
    collections::HashMap,
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use actix::{Arbiter, System};
use serde_json::{Value, json};
use tallyroom::client::{Client, Connection, SendError, Settled, View};
use tungstenite::{
    Error, Message, WebSocket,
    handshake::server::{ErrorResponse, Request, Response},
    http::HeaderValue,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{
    PATIENCE,
    conversation::{Conversation, Shows, Side, Step, What},
    placeholders::Names,
};

/// How much sooner than it should a client may come and still be on time.
const SLACK: Duration = Duration::from_millis(30);
/// The delay that this server asks for where the conversation leaves it open, in milliseconds.
const DELAY: u64 = 20;

impl Conversation {
    /// Holds it with the library's clients.
    ///
    /// # Errors
    ///
    /// The file, the step and what came instead.
    pub fn attend(&self) -> Result<(), String> {
        let _system = System::new();
        let mut attended = Attended {
            names: Names::new(&self.name, "memory"),
            arbiter: Arbiter::new(),
            guests: HashMap::new(),
            done_at: Instant::now(),
        };
        let mine = |step: &&Step| step.side.is_none_or(|side| side == Side::Client);
        for step in self.steps.iter().filter(mine) {
            let done = attended.take(&step.what);
            done.map_err(|why| format!("{}.json: {}\n  {why}", self.name, step.text))?;
        }
        attended.arbiter.stop();
        Ok(())
    }
}

/// A conversation under way.
struct Attended {
    names: Names,
    /// Where the clients run.
    arbiter: Arbiter,
    guests: HashMap<String, Guest>,
    /// When something was last done to a client, which it cannot have noticed before.
    done_at: Instant,
}

/// An action that a client was asked for, and what came of it.
struct Act {
    action: Value,
    outcome: Option<Result<Settled, SendError>>,
}

/// A client, and its present connection.
struct Guest {
    client: Client,
    listener: TcpListener,
    socket: Option<WebSocket<TcpStream>>,
    /// What came when nothing was looked for any more: a connection, or a message.
    came: Option<TcpStream>,
    said: Option<Message>,
    acts: Arc<Mutex<Vec<Act>>>,
    /// The codes of what was refused, as they came.
    refused: Arc<Mutex<Vec<String>>>,
}

impl Attended {
    fn take(&mut self, what: &What) -> Result<(), String> {
        if !matches!(what, What::Wait { .. }) {
            self.done_at = Instant::now();
        }
        match what {
            What::Connect {
                connect, protocols, ..
            } => self.connect(connect, protocols),
            What::Send { from, send } => {
                let came = self.guest(from).next()?;
                match self.names.matches(send, &came) {
                    true => Ok(()),
                    false => Err(format!("{came} came")),
                }
            }
            What::Quiet { from, .. } => self.guest(from).expect_quiet(),
            What::Event { may: true, .. } | What::Stop { .. } | What::Http { .. } => Ok(()),
            What::Event { to, event, .. } => self.say(to, event),
            What::Events { to, events } => events.iter().try_for_each(|event| self.say(to, event)),
            What::Close { to, close } => self.guest(to).close(*close),
            What::Disconnect { disconnect } => {
                self.guest(disconnect).socket = None;
                Ok(())
            }
            What::Wait { wait } => {
                let millis = wait.as_u64().unwrap_or(DELAY);
                self.wait(Duration::from_millis(millis))
            }
            What::Act { act, action } => {
                self.act(act, action);
                Ok(())
            }
            What::Shows { shows } => self.guest(&shows.client).expect_to_show(shows),
            What::Text { .. } | What::Binary { .. } => Err("no client sends this".to_owned()),
        }
    }

    /// The client of this name, which is started at its first mention.
    fn guest(&mut self, name: &str) -> &mut Guest {
        if !self.guests.contains_key(name) {
            let guest = Guest::start(&self.arbiter, &self.names.fill("$room"));
            self.guests.insert(name.to_owned(), guest);
        }
        self.guests.get_mut(name).unwrap()
    }

    fn connect(&mut self, name: &str, protocols: &[String]) -> Result<(), String> {
        let offered = self.guest(name).accept()?;
        if offered.len() != protocols.len() {
            return Err(format!("it offers {offered:?}"));
        }
        for token in protocols {
            let found = match token.strip_prefix("client.") {
                None => offered.contains(token),
                Some(id) => {
                    let mut ids = offered
                        .iter()
                        .filter_map(|token| token.strip_prefix("client."));
                    ids.any(|offered| self.names.matches(&id.into(), &offered.into()))
                }
            };
            if !found {
                return Err(format!("{token} is not in {offered:?}"));
            }
        }
        Ok(())
    }

    fn say(&mut self, name: &str, event: &Value) -> Result<(), String> {
        let event = self.names.fill_json(&given(event));
        let socket = self.guest(name).socket.as_mut().ok_or("it has left")?;
        // One that leaves at an event need not hear the next.
        let _ = socket.send(Message::text(event.to_string()));
        Ok(())
    }

    fn wait(&mut self, time: Duration) -> Result<(), String> {
        let until = self.done_at + time.saturating_sub(SLACK);
        for guest in self.guests.values_mut() {
            guest.expect_nothing(until)?;
        }
        Ok(())
    }

    fn act(&mut self, name: &str, action: &Value) {
        let guest = self.guest(name);
        let (client, acts) = (guest.client.clone(), guest.acts.clone());
        let refused = guest.refused.clone();
        let action = action.clone();
        let index = {
            let mut acts = acts.lock().unwrap();
            acts.push(Act {
                action: action.clone(),
                outcome: None,
            });
            acts.len() - 1
        };
        let sending = async move {
            let outcome = client.send(action).await;
            if let Err(SendError::Refused(why)) = &outcome {
                refused.lock().unwrap().push(why.code.clone().into_owned());
            }
            acts.lock().unwrap()[index].outcome = Some(outcome);
        };
        assert!(self.arbiter.spawn(sending));
    }
}

/// An event with values for what this server is free to say.
fn given(event: &Value) -> Value {
    match event {
        Value::String(text) => match text.trim_start_matches('$') {
            name if name.len() == text.len() => event.clone(),
            "message" => "a sentence".into(),
            "server" => "0.1.0".into(),
            "permissions" => json!(["read", "write"]),
            "ms" => DELAY.into(),
            _ => event.clone(),
        },
        Value::Array(list) => list.iter().map(given).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            Value::Object(
                fields
                    .map(|(name, value)| (name.clone(), given(value)))
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

impl Guest {
    fn start(arbiter: &Arbiter, room: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let builder = Client::builder(url).room(room);
        let (tell, told) = mpsc::channel();
        let connecting = async move {
            tell.send(builder.connect().unwrap()).unwrap();
        };
        assert!(arbiter.spawn(connecting));
        Self {
            client: told.recv_timeout(PATIENCE).unwrap(),
            listener,
            socket: None,
            came: None,
            said: None,
            acts: Arc::default(),
            refused: Arc::default(),
        }
    }

    /// Lets its next connection in, and gives the subprotocols that it offers.
    fn accept(&mut self) -> Result<Vec<String>, String> {
        let deadline = Instant::now() + PATIENCE;
        self.await_connection(deadline);
        let stream = self.came.take().ok_or("it does not come")?;
        self.said = None;
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut offered = Vec::new();
        #[expect(clippy::result_large_err, reason = "tungstenite has it so")]
        let answer = |request: &Request, mut response: Response| -> Result<_, ErrorResponse> {
            let header = request.headers().get("sec-websocket-protocol");
            let tokens = header
                .map_or("", |header| header.to_str().unwrap())
                .split(',');
            offered = tokens.map(|token| token.trim().to_owned()).collect();
            let chosen = HeaderValue::from_static("tallyroom.v1");
            response
                .headers_mut()
                .insert("sec-websocket-protocol", chosen);
            Ok(response)
        };
        let socket = tungstenite::accept_hdr(stream, answer).map_err(|err| err.to_string())?;
        self.socket = Some(socket);
        Ok(offered)
    }

    /// Waits until it comes, or until then.
    fn await_connection(&mut self, deadline: Instant) {
        while self.came.is_none() {
            self.came = self.listener.accept().ok().map(|(stream, _)| stream);
            if Instant::now() >= deadline {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn read(&mut self) -> Result<Message, String> {
        if let Some(said) = self.said.take() {
            return Ok(said);
        }
        let socket = self.socket.as_mut().ok_or("it has left")?;
        socket.read().map_err(|err| err.to_string())
    }

    /// The next that it sends.
    fn next(&mut self) -> Result<Value, String> {
        loop {
            match self.read()? {
                Message::Text(text) => {
                    return serde_json::from_str(&text).map_err(|err| err.to_string());
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => return Err(format!("{other:?} came")),
            }
        }
    }

    /// It has sent nothing more: a ping is answered first.
    fn expect_quiet(&mut self) -> Result<(), String> {
        let socket = self.socket.as_mut().ok_or("it has left")?;
        socket
            .send(Message::Ping(vec![7].into()))
            .map_err(|err| err.to_string())?;
        match self.read()? {
            Message::Pong(_) => Ok(()),
            other => Err(format!("{other:?} came")),
        }
    }

    /// Neither does it say anything until then, nor does it come. What is found after that may have come in time: a
    /// busy machine looks late.
    fn expect_nothing(&mut self, until: Instant) -> Result<(), String> {
        let Some(socket) = &mut self.socket else {
            self.await_connection(until);
            let early = self.came.is_some() && Instant::now() < until;
            return if early {
                Err("it came too early".to_owned())
            } else {
                Ok(())
            };
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        socket.get_ref().set_read_timeout(Some(left)).unwrap();
        let came = socket.read();
        socket.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        match came {
            Err(Error::Io(err)) if err.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Ok(message) if Instant::now() >= until => {
                self.said = Some(message);
                Ok(())
            }
            came => Err(format!("{came:?} came")),
        }
    }

    fn close(&mut self, code: u16) -> Result<(), String> {
        let mut socket = self.socket.take().ok_or("it has left")?;
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: "".into(),
        };
        socket.close(Some(frame)).map_err(|err| err.to_string())?;
        while socket.read().is_ok() {}
        Ok(())
    }

    fn expect_to_show(&self, wanted: &Shows) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let shown = self.shown(&wanted.client);
            if agrees(wanted, &shown) {
                return Ok(());
            }
            if start.elapsed() >= PATIENCE {
                return Err(format!("it shows {shown:?}"));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What a program shows that lays its own actions over the client's view.
    fn shown(&self, name: &str) -> Shows {
        let acts = self.acts.lock().unwrap();
        let view = self.client.view();
        let value = view.state.as_ref().and_then(|state| state.value.as_i64());
        let pending: Vec<&Act> = acts.iter().filter(|act| act.is_pending(&view)).collect();
        let unsure = |act: &&Act| matches!(act.outcome, Some(Err(SendError::Unsure)));
        Shows {
            client: name.to_owned(),
            value: value.map(|value| pending.iter().fold(value, |value, act| act.over(value))),
            pending: Some(pending.len()),
            users: view.users.map(|users| users.count as usize),
            refused: Some(self.refused.lock().unwrap().clone()),
            unsure: Some(acts.iter().filter(unsure).count()),
            ended: Some(matches!(view.connection, Connection::Ended(_))),
        }
    }
}

impl Act {
    /// Whether it is not yet in effect in what the view shows.
    fn is_pending(&self, view: &View) -> bool {
        match (&self.outcome, &view.state) {
            (None, _) => true,
            (Some(Ok(settled)), Some(state)) => {
                settled.epoch == state.epoch && settled.rev > state.rev
            }
            (Some(Ok(_)), None) => true,
            (Some(Err(_)), _) => false,
        }
    }

    fn over(&self, value: i64) -> i64 {
        let by = self.action["by"].as_i64().unwrap_or(1);
        match self.action["action"].as_str() {
            Some("plus") => value + by,
            Some("minus") => value - by,
            Some("set") => self.action["value"].as_i64().unwrap(),
            Some("reset") => 0,
            _ => value,
        }
    }
}

fn agrees(wanted: &Shows, shown: &Shows) -> bool {
    fn same<T: PartialEq>(wanted: &Option<T>, shown: &Option<T>) -> bool {
        wanted.is_none() || wanted == shown
    }
    same(&wanted.value, &shown.value)
        && same(&wanted.pending, &shown.pending)
        && same(&wanted.users, &shown.users)
        && same(&wanted.refused, &shown.refused)
        && same(&wanted.unsure, &shown.unsure)
        && same(&wanted.ended, &shown.ended)
}
