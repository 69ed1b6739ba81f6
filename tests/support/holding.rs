//! Holds the conversations of `docs/protocol/` with the real server: it plays the clients.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tungstenite::Message;

use super::{
    Client, PATIENCE, Server, connect,
    conversation::{Conversation, Expected, Request, Side, Step, What},
    http::{Answer, request, request_with},
    placeholders::Names,
    v1::{Told, handshake, hear, shaken},
};

impl Conversation {
    /// Holds it with a server that has its flags and a store of this durability.
    ///
    /// # Errors
    ///
    /// The file, the step and what came instead.
    pub fn hold(&self, server: &Server, durability: &str) -> Result<(), String> {
        let mut held = Held {
            server,
            names: Names::new(&self.name, durability),
            seats: HashMap::new(),
        };
        let mine = |step: &&Step| step.side.is_none_or(|side| side == Side::Server);
        let steps: Vec<&Step> = self.steps.iter().filter(mine).collect();
        for (nth, step) in steps.iter().enumerate() {
            let more = steps.get(nth + 1).and_then(|next| next.sender());
            let done = held.take(&step.what, more);
            done.map_err(|why| format!("{}.json: {}\n  {why}", self.name, step.text))?;
        }
        held.end()
            .map_err(|why| format!("{}.json, at the end: {why}", self.name))
    }
}

/// A conversation under way.
struct Held<'a> {
    server: &'a Server,
    names: Names,
    seats: HashMap<String, Seat>,
}

/// An open socket, and the events that it may be told beside those that are expected.
struct Seat {
    client: Client,
    may: Vec<Value>,
}

impl Held<'_> {
    /// Takes one step; `more` is who sends by the next one.
    fn take(&mut self, what: &What, more: Option<&str>) -> Result<(), String> {
        match what {
            What::Connect { .. } => self.connect(what),
            What::Send { from, send } => {
                let text = self.names.fill_json(send).to_string();
                self.send(from, Message::text(text), more)
            }
            What::Text { from, text } => {
                let text = self.names.fill(text);
                self.send(from, Message::text(text), more)
            }
            What::Binary { from, binary } => {
                let bytes = self.names.fill(binary).into_bytes();
                self.send(from, Message::binary(bytes), more)
            }
            What::Event { to, event, may } => {
                if *may {
                    self.seat(to)?.may.push(event.clone());
                    return Ok(());
                }
                self.hear(to, vec![event.clone()])
            }
            What::Events { to, events } => self.hear(to, events.clone()),
            What::Close { to, close } => self.hear_close(to, *close),
            What::Disconnect { disconnect } => {
                let gone = self.seats.remove(disconnect);
                gone.map(drop)
                    .ok_or_else(|| "there is no such socket".into())
            }
            What::Stop { .. } => {
                self.server.signal("TERM");
                Ok(())
            }
            What::Wait { wait } => {
                thread::sleep(Duration::from_millis(self.delay(wait)));
                Ok(())
            }
            What::Quiet { .. } | What::Act { .. } | What::Shows { .. } => Ok(()),
            What::Http { request, answer } => {
                let answered = self.ask(request);
                answer.compare(&answered, &mut self.names)
            }
        }
    }

    fn delay(&self, wait: &Value) -> u64 {
        wait.as_u64().unwrap_or(self.names.delay)
    }

    fn seat(&mut self, name: &str) -> Result<&mut Seat, String> {
        let seat = self.seats.get_mut(name);
        seat.ok_or_else(|| "there is no such socket".into())
    }

    fn connect(&mut self, what: &What) -> Result<(), String> {
        let What::Connect {
            connect: name,
            path,
            protocols,
            chosen,
            refused,
        } = what
        else {
            unreachable!("the step connects");
        };
        let path = self.names.fill(path.as_deref().unwrap_or("/r/$room"));
        let offered: Vec<String> = match protocols.as_slice() {
            [] => Vec::new(),
            some => vec![format!(
                "Sec-WebSocket-Protocol: {}",
                self.names.fill(&some.join(", "))
            )],
        };
        let mut stream = connect(("127.0.0.1", self.server.port()));
        let answered = handshake(&mut stream, &path, &offered);
        if let Some(refused) = refused {
            return refused.compare(&answered, &mut self.names);
        }
        let known = "tallyroom.v1".to_owned();
        let by_itself = protocols.contains(&known).then_some(known);
        let chosen = chosen.clone().unwrap_or(by_itself);
        let came = answered.header("sec-websocket-protocol");
        if answered.status != 101 || came != chosen.as_deref() {
            return Err(format!("the handshake was answered so: {answered:?}"));
        }
        let seat = Seat {
            client: shaken(stream),
            may: Vec::new(),
        };
        self.seats.insert(name.clone(), seat);
        Ok(())
    }

    fn send(&mut self, from: &str, message: Message, more: Option<&str>) -> Result<(), String> {
        let socket = &mut self.seat(from)?.client.socket;
        let written = socket.write(message);
        // Messages in a row go out together, so that a slow machine puts no time between them.
        let flushed = match more == Some(from) {
            true => Ok(()),
            false => socket.flush(),
        };
        written
            .and(flushed)
            .map_err(|err| format!("it was not sent: {err}"))
    }

    /// Reads until all of these came, in any order.
    fn hear(&mut self, to: &str, mut expected: Vec<Value>) -> Result<(), String> {
        let start = Instant::now();
        while !expected.is_empty() {
            // Beats keep a session talking that has nothing to tell.
            if start.elapsed() > PATIENCE {
                return Err(format!("{expected:?} did not come"));
            }
            let told = hear(&mut self.seat(to)?.client)?;
            let Told::Event(event) = told else {
                return Err(format!("{told:?} came instead"));
            };
            let names = &mut self.names;
            if let Some(nth) = expected.iter().position(|one| names.matches(one, &event)) {
                expected.remove(nth);
                let same = |one: &Value| one["type"] == event["type"];
                self.seat(to)?.may.retain(|one| !same(one));
                continue;
            }
            let awaited = expected.iter().any(|one| one["type"] == event["type"]);
            if !self.may_come(to, &event, awaited)? {
                return Err(format!("{event} came instead of {expected:?}"));
            }
        }
        Ok(())
    }

    /// Whether an event that was not expected may come all the same.
    fn may_come(&mut self, to: &str, event: &Value, awaited: bool) -> Result<bool, String> {
        let mut names = self.names.clone();
        let may = &mut self.seat(to)?.may;
        if let Some(nth) = may.iter().position(|one| names.matches(one, event)) {
            may.remove(nth);
            self.names = names;
            return Ok(true);
        }
        let by_the_way = matches!(event["type"].as_str(), Some("users" | "beat"));
        Ok(by_the_way && !awaited)
    }

    fn hear_close(&mut self, to: &str, code: u16) -> Result<(), String> {
        loop {
            match hear(&mut self.seat(to)?.client)? {
                Told::Closed(Some(came)) if came == code => {
                    self.seats.remove(to);
                    return Ok(());
                }
                Told::Event(event) if self.may_come(to, &event, false)? => {}
                told => return Err(format!("{told:?} came instead")),
            }
        }
    }

    fn ask(&mut self, asked: &Request) -> Answer {
        let port = self.server.port();
        let path = self.names.fill(&asked.path);
        let headers: Vec<String> = asked
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", self.names.fill(value.as_str().unwrap())))
            .collect();
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let body = match (&asked.body, &asked.text) {
            (Some(body), _) => Some(self.names.fill_json(body).to_string()),
            (None, Some(text)) => Some(self.names.fill(text)),
            (None, None) => None,
        };
        match body {
            Some(body) => request_with(port, &asked.method, &path, &headers, body),
            None => request(port, &asked.method, &path, &headers),
        }
    }

    /// Closes the sockets that are left: nothing may come that no step expects.
    fn end(&mut self) -> Result<(), String> {
        let names: Vec<String> = self.seats.keys().cloned().collect();
        for name in names {
            // Where it is closing already, that is read below.
            let _ = self.seat(&name)?.client.socket.close(None);
            while let Told::Event(event) = hear(&mut self.seat(&name)?.client)? {
                if !self.may_come(&name, &event, false)? {
                    return Err(format!("{name} is told {event}, too"));
                }
            }
            self.seats.remove(&name);
        }
        Ok(())
    }
}

impl Expected {
    /// Compares an answer with what is expected.
    fn compare(&self, answer: &Answer, names: &mut Names) -> Result<(), String> {
        let agrees = answer.status == self.status
            && self.agrees_headers(answer, names)
            && self.agrees_body(answer, names);
        if agrees {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&answer.body);
        let Answer {
            status, headers, ..
        } = answer;
        Err(format!("{status} {headers:?} {text} came instead"))
    }

    fn agrees_headers(&self, answer: &Answer, names: &mut Names) -> bool {
        self.headers.iter().all(|(name, expected)| {
            match answer.header(&name.to_ascii_lowercase()) {
                None => expected.is_null(),
                Some(came) => names.matches(expected, &came.into()),
            }
        })
    }

    fn agrees_body(&self, answer: &Answer, names: &mut Names) -> bool {
        match (&self.body, &self.lines, &self.csv) {
            (Some(body), ..) => names.matches(body, &answer.json()),
            (_, Some(lines), _) => names.matches(&json!(lines), &json!(answer.lines())),
            (_, _, Some(rows)) => names.matches(&json!(rows), &json!(answer.csv())),
            _ => true,
        }
    }
}
