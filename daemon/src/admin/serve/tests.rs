#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::response::IntoResponse;
use axum::routing::get;
use futures_util::stream::unfold;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;

/// Serves one connection, whose buffer is small, with an answer that goes on; how often it was asked for a part.
fn serve_endless(lasting: bool) -> (DuplexStream, JoinHandle<()>, watch::Sender<bool>) {
    let answer = move || async move {
        let parts = unfold((), async |()| {
            sleep(Duration::from_secs(15)).await;
            Some((Ok::<_, Infallible>(vec![b'x'; 64]), ()))
        });
        let mut answer = Body::from_stream(parts).into_response();
        if lasting {
            answer.extensions_mut().insert(Lasting);
        }
        answer
    };
    let router = Router::new().route("/", get(answer));
    let (client, server) = duplex(1024);
    let (stop, stopped) = watch::channel(false);
    let served = tokio::spawn(async move {
        let guest = Arc::new(Guest {
            since: Mutex::new(Instant::now()),
            asking: AtomicBool::new(false),
            leave: Notify::new(),
        });
        converse(server, &guest, TowerToHyperService::new(router), stopped).await;
        assert!(!guest.asking.load(Ordering::Relaxed), "the answer has ended");
    });
    (client, served, stop)
}

async fn ask(client: &mut DuplexStream) -> Instant {
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    Instant::now()
}

async fn read_on(client: &mut DuplexStream) {
    let mut bytes = [0; 256];
    while client.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
}

#[tokio::test(start_paused = true)]
async fn an_answer_ends_in_time_unless_it_is_to_last() {
    let (mut client, served, _stop) = serve_endless(false);
    let begun = ask(&mut client).await;
    read_on(&mut client).await;
    assert_eq!(begun.elapsed().as_secs(), EXCHANGE_LIMIT.as_secs());
    served.await.unwrap();

    let (mut client, served, stop) = serve_endless(true);
    ask(&mut client).await;
    let hour = Duration::from_secs(3600);
    assert!(timeout(hour, read_on(&mut client)).await.is_err(), "it lasts while it is read");
    stop.send(true).unwrap();
    let begun = Instant::now();
    read_on(&mut client).await;
    served.await.unwrap();
    assert!(begun.elapsed() < STOP_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn a_lasting_answer_that_nobody_reads_ends_too() {
    let (mut client, served, _stop) = serve_endless(true);
    let begun = ask(&mut client).await;
    served.await.unwrap();
    // Buffers took what they could.
    assert!(begun.elapsed() < Duration::from_secs(3600 * 6), "{:?}", begun.elapsed());
    drop(client);
}
