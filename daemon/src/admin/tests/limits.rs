//! Those who ask for too much, too slowly, or under a wrong name.

use super::*;

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let server = Server::start(Some("s3cret"), engine()).await;
    let answer = server.get(&format!("/live?{}", "x".repeat(17_000)), "").await;
    assert_eq!((answer.status, answer.json()), (414, json!({ "error": "the path is too long" })));
    assert_eq!(server.get("/live", &"a: b\r\n".repeat(100)).await.status, 431);
    assert_eq!(server.get("/live", &format!("a: {}\r\n", "x".repeat(70_000))).await.status, 431);
    let token = "authorization: Bearer s3cret\r\n";
    for (length, expected) in [
        ("content-length: 65537\r\n", 413),
        ("content-length: 99999999999\r\n", 413),
        ("transfer-encoding: chunked\r\n", 411),
        ("content-length: 0\r\n", 202),
        ("", 202),
    ] {
        assert_eq!(server.ask("POST", "/api/v1/train", &format!("{token}{length}")).await.status, expected);
    }
    assert_eq!(server.get("/live", "").await.status, 200);
}

#[tokio::test]
async fn a_name_that_is_not_known_gets_the_probes_alone() {
    let ask = |server: SocketAddr, host: &'static str, path: &'static str| async move {
        let mut stream = TcpStream::connect(server).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\n{host}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap(), answer)
    };
    let server = Server::start(None, engine()).await;
    for path in ["/", "/assets/page.js", "/metrics", "/api/v1/series"] {
        let (status, answer) = ask(server.address, "host: evil.example:80\r\n", path).await;
        assert_eq!(status, 421, "{path}");
        assert!(answer.contains("add that name to [http] allowed_hosts"), "{answer}");
        assert_eq!(ask(server.address, "host: 127.0.0.1:9464\r\n", path).await.0, 200, "{path}");
    }
    assert_eq!(ask(server.address, "host: evil.example\r\n", "/live").await.0, 200);
}

/// They hold every place, half a head each, and more of them wait.
#[tokio::test]
async fn those_who_never_finish_a_request_keep_nobody_out() {
    let server = Server::start(None, engine()).await;
    let mut slow = Vec::new();
    for _ in 0..400 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // Those that had to make way have been closed by now.
        let _ = stream.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
        slow.push(stream);
    }
    for path in ["/live", "/metrics", "/api/v1/series", "/"] {
        assert_eq!(server.get(path, "").await.status, 200, "{path}");
    }
    let mut closed = 0;
    for stream in &mut slow {
        let mut byte = [0];
        let read = tokio::time::timeout(std::time::Duration::from_millis(1), stream.read(&mut byte)).await;
        closed += usize::from(read.is_ok());
    }
    assert!(closed >= 400 - 128, "{closed} of 400 had to make way");
}

/// Histories that the store never answers.
#[tokio::test]
async fn a_store_that_hangs_is_not_asked_by_ever_more() {
    let server = Server::start(None, engine()).await;
    let mut waiting = Vec::new();
    for _ in 0..17 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /api/v1/series/stuck/x HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        waiting.push(stream);
    }
    // All but one wait.
    let answers = waiting.iter_mut().map(|stream| {
        Box::pin(async {
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            String::from_utf8_lossy(&head).into_owned()
        })
    });
    let (answer, ..) = futures_util::future::select_all(answers).await;
    assert_eq!(answer, "HTTP/1.1 503");
    while server.asked.lock().unwrap().len() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.get("/api/v1/series", "").await.status, 200);
    assert_eq!(server.asked.lock().unwrap().len(), 3, "more than so many at a time");
}
