//! The simulated disk: each request takes time, and some fail, lose their answers, or are done twice. What it holds is on
//! the real disk, so that all of production reads it.

use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use super::daemon::{Fault, Step, Surroundings};

#[derive(Clone)]
pub(super) struct SimulatedDisk {
    disk: Arc<dyn ObjectStore>,
    surroundings: Arc<Surroundings>,
}

impl SimulatedDisk {
    pub(super) fn new(disk: Arc<dyn ObjectStore>, surroundings: Arc<Surroundings>) -> Self {
        Self { disk, surroundings }
    }

    /// What happens to a request before it reaches the disk.
    async fn request(&self, location: &Path) -> Result<Option<Fault>> {
        self.surroundings.step(Step::Request, location).await.map_err(failed)?;
        match self.surroundings.fault(location) {
            Some(Fault::Fails) => Err(failed("simulated: the disk failed")),
            fault => Ok(fault),
        }
    }

    /// Writes at once: a daemon that is killed has written all of it, or nothing.
    fn write(&self, location: &Path, payload: &PutPayload, mode: &PutMode) -> Result<PutResult> {
        let to = PathBuf::from(format!("/{location}"));
        let write = || {
            std::fs::create_dir_all(to.parent().unwrap())?;
            let part = self.surroundings.world.folder().join(format!("part{}", self.surroundings.id()));
            let mut file = std::fs::File::create(&part)?;
            payload.iter().try_for_each(|bytes| file.write_all(bytes))?;
            match mode {
                PutMode::Create => {
                    let linked = std::fs::hard_link(&part, &to);
                    std::fs::remove_file(&part)?;
                    linked
                }
                _ => std::fs::rename(&part, &to),
            }
        };
        match write() {
            Ok(()) => Ok(PutResult { e_tag: None, version: None }),
            Err(failure) if failure.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: location.to_string(), source: Box::new(failure) })
            }
            Err(failure) => Err(Error::Generic { store: "simulated", source: Box::new(failure) }),
        }
    }
}

fn failed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: "simulated", source: why.into() }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

impl fmt::Display for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for SimulatedDisk {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let fault = self.request(location).await?;
        let mut written = self.write(location, &payload, &opts.mode);
        if written.is_ok() {
            self.surroundings.wrote(location);
            if fault == Some(Fault::Twice) {
                written = self.write(location, &payload, &opts.mode);
            }
        }
        self.surroundings.step(Step::Answer, location).await.map_err(failed)?;
        match fault {
            Some(Fault::LosesAnswer) => Err(failed("simulated: the answer was lost")),
            _ => written,
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.request(location).await?;
        self.disk.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.request(location).await?;
        self.disk.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.request(location).await?;
        self.disk.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let disk = self.clone();
        let locations = locations.then(move |location| {
            let disk = disk.clone();
            async move {
                let location = location?;
                disk.request(&location).await?;
                Ok(location)
            }
        });
        self.disk.delete_stream(locations.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.after_request(prefix, self.disk.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.after_request(prefix, self.disk.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request(prefix.unwrap_or(&Path::default())).await?;
        self.disk.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.request(from).await?;
        self.disk.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.request(from).await?;
        self.disk.rename_opts(from, to, options).await
    }
}

impl SimulatedDisk {
    fn after_request(
        &self,
        prefix: Option<&Path>,
        found: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (disk, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let request = stream::once(async move { disk.request(&prefix).await });
        let failures = request.filter_map(|answer| std::future::ready(answer.err().map(Err)));
        // Nothing is found after a failure.
        failures
            .chain(found)
            .scan(false, |ended, found| {
                let was = std::mem::replace(ended, found.is_err());
                std::future::ready((!was).then_some(found))
            })
            .boxed()
    }
}
