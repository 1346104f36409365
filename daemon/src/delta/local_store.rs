//! The local file system, with a shortcut for the end of a Delta log. A local folder can only be listed as a whole, and
//! the log of a week has several hundred thousand entries. Their names are consecutive versions, so those after a
//! checkpoint can be requested one by one instead.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use super::damaged;
use super::log::LOG_FOLDER;

/// The local file system, which lists the end of a log by requesting one entry after the other.
///
/// Entries are read on the calling thread: they are small, and usually in the page cache. Delta readers request
/// hundreds of them at once, and each would otherwise take a blocking thread, whose memory is not returned.
#[derive(Clone, Debug, Default)]
pub(super) struct LocalStore(Arc<LocalFileSystem>);

impl LocalStore {
    /// The files of a log from the checkpoint of `version` on; `None` if there is no such checkpoint in one file.
    fn list_tail(&self, log: &Path, version: u64) -> Result<Option<Vec<ObjectMeta>>> {
        let path = |version: u64, kind: &str| log.clone().join(format!("{version:020}.{kind}"));
        let Some(checkpoint) = self.head_of(path(version, "checkpoint.parquet"))? else { return Ok(None) };
        let mut found = vec![checkpoint];
        // The commit of a checkpoint's version may have been cleaned up.
        found.extend(self.head_of(path(version, "json"))?);
        for version in version + 1.. {
            let Some(entry) = self.head_of(path(version, "json"))? else { break };
            found.extend(self.head_of(path(version, "checkpoint.parquet"))?);
            found.push(entry);
        }
        Ok(Some(found))
    }

    /// Reads a whole commit.
    fn read_entry(&self, location: &Path) -> Result<GetResult> {
        let path = self.0.path_to_filesystem(location)?;
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => {
                object_store::Error::NotFound { path: location.to_string(), source: Box::new(source) }
            }
            _ => object_store::Error::Generic { store: "silverd", source: Box::new(source) },
        };
        let mut file = File::open(path).map_err(failed)?;
        let last_modified = file.metadata().and_then(|metadata| metadata.modified()).map_err(failed)?.into();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let size = bytes.len() as u64;
        let payload = GetResultPayload::Stream(stream::once(std::future::ready(Ok(bytes.into()))).boxed());
        let meta = ObjectMeta { location: location.clone(), last_modified, size, e_tag: None, version: None };
        Ok(GetResult { payload, meta, range: 0..size, attributes: Attributes::default() })
    }

    /// Whether a file of a log is a damaged one, which is left out.
    fn is_left_out(&self, location: &Path) -> bool {
        let is_of_log = is_entry(location) || location.filename().is_some_and(|name| name.contains("checkpoint"));
        is_of_log && self.0.path_to_filesystem(location).is_ok_and(|path| damaged::is_left_out(&path))
    }

    /// Without the damaged files.
    fn readable(&self, found: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let is_readable = move |found: &Result<ObjectMeta>| {
            std::future::ready(!found.as_ref().is_ok_and(|meta| store.is_left_out(&meta.location)))
        };
        found.filter(is_readable).boxed()
    }

    fn head_of(&self, location: Path) -> Result<Option<ObjectMeta>> {
        if self.is_left_out(&location) {
            return Ok(None);
        }
        let path = self.0.path_to_filesystem(&location)?;
        let failed =
            |source: std::io::Error| object_store::Error::Generic { store: "silverd", source: Box::new(source) };
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(failure) if failure.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(failure) => return Err(failed(failure)),
        };
        let last_modified = metadata.modified().map_err(failed)?.into();
        Ok(Some(ObjectMeta { location, last_modified, size: metadata.len(), e_tag: None, version: None }))
    }
}

fn is_entry(location: &Path) -> bool {
    let mut parts = location.parts().rev();
    parts.next().is_some_and(|name| name.as_ref().ends_with(".json"))
        && parts.next().is_some_and(|folder| folder.as_ref() == LOG_FOLDER)
}

/// The version after which a Delta reader lists a log: it requests the version's digits without an extension.
fn requested_version(prefix: Option<&Path>, offset: &Path) -> Option<u64> {
    let digits = prefix.filter(|prefix| prefix.filename() == Some(LOG_FOLDER)).and(offset.filename())?;
    let digits = digits.strip_suffix('.').unwrap_or(digits);
    let version = (digits.len() == 20).then(|| digits.parse().ok())??;
    (version > 0).then_some(version)
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let Some(version) = requested_version(prefix, offset) else {
            return self.readable(self.0.list_with_offset(prefix, offset));
        };
        match prefix.map(|log| self.list_tail(log, version)) {
            Some(Ok(Some(tail))) => stream::iter(tail).map(Ok).boxed(),
            Some(Err(failure)) => stream::once(std::future::ready(Err(failure))).boxed(),
            Some(Ok(None)) | None => self.readable(self.0.list_with_offset(prefix, offset)),
        }
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.0.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let whole = options.range.is_none() && !options.head && options.version.is_none();
        let any_tag = options.if_match.is_none() && options.if_none_match.is_none();
        let any_time = options.if_modified_since.is_none() && options.if_unmodified_since.is_none();
        if self.is_left_out(location) {
            let source = "damaged".into();
            return Err(object_store::Error::NotFound { path: location.to_string(), source });
        }
        if !(whole && any_tag && any_time && is_entry(location)) {
            return self.0.get_opts(location, options).await;
        }
        self.read_entry(location)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.readable(self.0.list(prefix))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.0.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use futures::TryStreamExt;

    use super::*;

    fn names(found: Vec<ObjectMeta>) -> Vec<String> {
        let mut names: Vec<_> = found.iter().map(|meta| meta.location.filename().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn listing_the_tail_equals_listing_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join(LOG_FOLDER);
        std::fs::create_dir(&log).unwrap();
        let write = |name: String| std::fs::write(log.join(name), "x").unwrap();
        (0..30).for_each(|version| write(format!("{version:020}.json")));
        for version in [10, 20] {
            write(format!("{version:020}.checkpoint.parquet"));
        }
        let prefix = Path::from_absolute_path(&log).unwrap();
        let (plain, local) = (LocalFileSystem::new(), LocalStore::default());
        for cleaned in [false, true] {
            if cleaned {
                (0..=10).for_each(|version| std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap());
            }
            // Version 15 has no checkpoint: the whole folder is listed.
            for version in [0, 10, 15, 20] {
                let offset = prefix.clone().join(format!("{version:020}"));
                let expected: Vec<_> = plain.list_with_offset(Some(&prefix), &offset).try_collect().await.unwrap();
                let found: Vec<_> = local.list_with_offset(Some(&prefix), &offset).try_collect().await.unwrap();
                assert_eq!(names(found), names(expected), "from {version}");
            }
        }
    }

    #[test]
    fn only_log_listings_request_a_version() {
        let requested = |folder: &str, name: &str| {
            requested_version(Some(&Path::from(folder)), &Path::from(format!("{folder}/{name}")))
        };
        let log = format!("a/{LOG_FOLDER}");
        assert_eq!(requested(&log, "00000000000000000200"), Some(200));
        assert_eq!(requested(&log, "00000000000000000000"), None);
        assert_eq!(requested(&log, "00000000000000000200.json"), None);
        assert_eq!(requested("a/b", "00000000000000000200"), None);
    }
}
