//! Telling the agent of a pod, and waiting until the pod's policy is in force.
//!
//! One request a connection on `<runDir>/cni.sock`, one JSON object a line each way.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::IpAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::attachment::{Attachment, PortMapping};

/// How long ADD waits for the agent before it goes on alone.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What the plugin says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub op: Op,
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
    pub netns: PathBuf,
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    /// As ENDPOINTS has it.
    #[serde(rename = "netnsCookie")]
    pub netns_cookie: u64,
    pub ips: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
    /// Of the attachment.
    pub revision: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    Add,
    Del,
}

/// What the agent answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_revision: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Request {
    pub fn new(op: Op, a: &Attachment) -> Request {
        Request {
            op,
            container_id: a.container_id.clone(),
            ifname: a.ifname.clone(),
            netns: a.netns.clone(),
            namespace: a.namespace.clone(),
            pod: a.pod.clone(),
            uid: a.uid.clone(),
            netns_cookie: a.netns_cookie,
            ips: a.ips.clone(),
            ports: a.ports.clone(),
            revision: a.revision,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The pod's policy is in force.
    InForce,
    /// The agent says no, and why.
    Refused(String),
    /// No agent, or none that answers; why.
    Alone(String),
}

/// Longest answer that is read.
const LINE: u64 = 64 * 1024;

pub fn tell(socket: &Path, request: &Request, patience: Duration) -> Answer {
    match exchange(socket, request, patience) {
        Ok(r) if r.ok => Answer::InForce,
        Ok(r) => Answer::Refused(r.error.unwrap_or_else(|| "no reason given".into())),
        Err(e) => Answer::Alone(e.to_string()),
    }
}

fn exchange(socket: &Path, request: &Request, patience: Duration) -> io::Result<Response> {
    let deadline = Instant::now() + patience;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(io::Error::from(io::ErrorKind::TimedOut)),
            false => Ok(Some(left)),
        }
    };
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(left()?)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reader = BufReader::new(stream.try_clone()?).take(LINE);
    let mut answer = Vec::new();
    // A read ends at each piece that arrives, so that the deadline is the whole answer's.
    while answer.last() != Some(&b'\n') {
        stream.set_read_timeout(left()?)?;
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = piece.iter().position(|b| *b == b'\n');
        let n = end.map_or(piece.len(), |i| i + 1);
        answer.extend_from_slice(&piece[..n]);
        reader.consume(n);
    }
    Ok(serde_json::from_slice(&answer)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::ipam::state::tests::attachment;

    fn with_agent(reply: &'static [u8], hold: Duration) -> Answer {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cni.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let request = Request::new(Op::Add, &attachment("c1", &[], 7));
        let expected = request.clone();
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap())
                .read_line(&mut line)
                .unwrap();
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), expected);
            assert!(line.contains("\"containerID\":\"c1\""));
            assert!(line.contains("\"netnsCookie\":"));
            stream.write_all(reply).unwrap();
            std::thread::sleep(hold);
        });
        let answer = tell(&path, &request, Duration::from_millis(300));
        agent.join().unwrap();
        answer
    }

    #[test]
    fn every_kind_of_agent() {
        let no = Duration::ZERO;
        assert_eq!(
            with_agent(b"{\"ok\":true,\"policyRevision\":3}\n", no),
            Answer::InForce
        );
        assert_eq!(
            with_agent(b"{\"ok\":false,\"error\":\"unknown pod\"}\n", no),
            Answer::Refused("unknown pod".into())
        );
        // Dies midway, talks nonsense, or says nothing.
        assert!(matches!(with_agent(b"{\"ok\":tr", no), Answer::Alone(_)));
        assert!(matches!(with_agent(b"hello\n", no), Answer::Alone(_)));
        assert!(matches!(
            with_agent(b"", Duration::from_millis(600)),
            Answer::Alone(_)
        ));
        let request = Request::new(Op::Del, &attachment("c1", &[], 7));
        let nobody = tell(Path::new("/nonexistent/cni.sock"), &request, PATIENCE);
        assert!(matches!(nobody, Answer::Alone(_)));
    }
}
