//! Jobs shared by worker processes: a queue group, retry, and a dead-letter subject.
//!
//! `cargo run --example workers` opens a mesh, starts three workers (this program again), and publishes twenty
//! resizes. Each goes to one worker. One of them can never succeed: after three attempts it is a dead letter.

use flowmesh::{
    Backoff, Delivery, ErrorKind, HandlerError, Mesh, Name, OnSlow, PublishOptions, Retry, Subject,
    SubscribeOptions,
};
use std::{collections::BTreeSet, path::Path, process::Command, time::Duration};

const JOBS: usize = 20;
const WORKERS: usize = 3;
const SOON: Option<Duration> = Some(Duration::from_secs(30));

fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1) {
        Some(directory) => Ok(work(Path::new(&directory))?),
        None => host(),
    }
}

fn host() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("flowmesh-workers-{}", std::process::id()));
    let mesh = Mesh::open(&directory)?;
    let dead_letters = mesh.subscribe("images.dead")?;
    let results = mesh.subscribe("images.done")?;
    let ready = mesh.subscribe("workers.ready")?;

    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(Command::new(std::env::current_exe()?).arg(&directory).spawn()?);
        ready.receive(SOON)?;
    }
    for number in 0..JOBS {
        let headers = vec![("content-type".into(), "text/plain".into())];
        let options = PublishOptions { headers, ..PublishOptions::default() };
        mesh.publish_with("images.resize", format!("image-{number}").as_bytes(), &options)?;
    }

    let mut who = BTreeSet::new();
    for _ in 1..JOBS {
        who.insert(results.receive(SOON)?.message.payload().to_vec());
    }
    let dead = dead_letters.receive(SOON)?.message;
    println!("{} images resized by {} workers", JOBS - 1, who.len());
    println!(
        "{} failed {} times: {}",
        String::from_utf8_lossy(dead.payload()),
        dead.header_value("x-flowmesh-attempts").unwrap_or("?"),
        dead.header_value("x-flowmesh-error").unwrap_or("?"),
    );

    mesh.close(); // the workers' sessions end with it, and so do they
    for mut worker in workers {
        worker.wait()?;
    }
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

fn work(directory: &Path) -> flowmesh::Result<()> {
    let mesh = Mesh::connect(directory)?;
    let backoff = Backoff { initial: Duration::from_millis(20), ..Backoff::default() };
    let options = SubscribeOptions {
        group: Some(Name::parse("resizers")?),
        on_slow: OnSlow::Block { timeout: Duration::from_secs(5) },
        retry: Some(Retry { max_attempts: 3, backoff, dead_letter: Some(Subject::parse("images.dead")?) }),
        ..SubscribeOptions::default()
    };
    let images = mesh.subscribe_with("images.resize", options)?;
    mesh.publish("workers.ready", b"")?;
    loop {
        match images.receive(None) {
            Ok(image) => match resize(&image) {
                Ok(()) => drop(mesh.publish("images.done", std::process::id().to_string().as_bytes())?),
                Err(error) => images.fail(image, &error)?,
            },
            Err(error) if error.kind() == ErrorKind::Disconnected => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn resize(image: &Delivery) -> Result<(), HandlerError> {
    if image.message.payload().ends_with(b"-13") {
        return Err(HandlerError { kind: "BadImage".into(), message: "it has no pixels".into() });
    }
    std::thread::sleep(Duration::from_millis(5));
    Ok(())
}
