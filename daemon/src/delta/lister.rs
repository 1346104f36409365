//! The end of a log without a look at all of it. A local folder can only be listed whole, and a log that is kept for a week
//! has some hundred thousand entries; but their names follow one another, so those behind a checkpoint can be asked for.

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

use super::log::LOG;

/// The local file system, which tells the end of a log by asking for one entry after the other.
///
/// Entries are read on the spot: they are small, and most often in memory. Delta's readers ask for hundreds of them at once,
/// and each would have a thread of its own, which keeps some megabytes.
#[derive(Clone, Debug, Default)]
pub struct Lister(Arc<LocalFileSystem>);

impl Lister {
    /// What stands in a log from the checkpoint of `version` on; `None` where there is no such checkpoint in one file.
    fn end_of(&self, log: &Path, version: u64) -> Result<Option<Vec<ObjectMeta>>> {
        let of = |version: u64, kind: &str| log.clone().join(format!("{version:020}.{kind}"));
        let Some(checkpoint) = self.head_of(of(version, "checkpoint.parquet"))? else { return Ok(None) };
        let mut found = vec![checkpoint];
        // The entry of a checkpoint may have been cleaned away.
        found.extend(self.head_of(of(version, "json"))?);
        for version in version + 1.. {
            let Some(entry) = self.head_of(of(version, "json"))? else { break };
            found.extend(self.head_of(of(version, "checkpoint.parquet"))?);
            found.push(entry);
        }
        Ok(Some(found))
    }

    /// An entry of a log, whole.
    fn entry(&self, location: &Path) -> Result<GetResult> {
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

    fn head_of(&self, location: Path) -> Result<Option<ObjectMeta>> {
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
        && parts.next().is_some_and(|folder| folder.as_ref() == LOG)
}

/// The version behind which a log is to be listed, as Delta's readers ask for it: its digits, and nothing behind them.
fn wanted_version(prefix: Option<&Path>, offset: &Path) -> Option<u64> {
    let digits = prefix.filter(|prefix| prefix.filename() == Some(LOG)).and(offset.filename())?;
    let digits = digits.strip_suffix('.').unwrap_or(digits);
    let version = (digits.len() == 20).then(|| digits.parse().ok())??;
    (version > 0).then_some(version)
}

impl fmt::Display for Lister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Lister {
    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let Some(version) = wanted_version(prefix, offset) else { return self.0.list_with_offset(prefix, offset) };
        match prefix.map(|log| self.end_of(log, version)) {
            Some(Ok(Some(end))) => stream::iter(end).map(Ok).boxed(),
            Some(Err(failure)) => stream::once(std::future::ready(Err(failure))).boxed(),
            Some(Ok(None)) | None => self.0.list_with_offset(prefix, offset),
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
        let any = options.if_match.is_none() && options.if_none_match.is_none();
        let ever = options.if_modified_since.is_none() && options.if_unmodified_since.is_none();
        if !(whole && any && ever && is_entry(location)) {
            return self.0.get_opts(location, options).await;
        }
        self.entry(location)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
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
    #![allow(clippy::unwrap_used)]
    use futures::TryStreamExt;

    use super::*;

    fn names(found: Vec<ObjectMeta>) -> Vec<String> {
        let mut names: Vec<_> = found.iter().map(|meta| meta.location.filename().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    /// The same as the listing of the whole folder, wherever the log begins and ends.
    #[tokio::test]
    async fn the_end_of_a_log_is_that_of_the_listing() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join(LOG);
        std::fs::create_dir(&log).unwrap();
        let write = |name: String| std::fs::write(log.join(name), "x").unwrap();
        (0..30).for_each(|version| write(format!("{version:020}.json")));
        for version in [10, 20] {
            write(format!("{version:020}.checkpoint.parquet"));
        }
        let prefix = Path::from_absolute_path(&log).unwrap();
        let (plain, lister) = (LocalFileSystem::new(), Lister::default());
        for cleaned in [false, true] {
            if cleaned {
                (0..=10).for_each(|version| std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap());
            }
            // 15 has no checkpoint: there the whole folder is listed.
            for version in [0, 10, 15, 20] {
                let offset = prefix.clone().join(format!("{version:020}"));
                let expected: Vec<_> = plain.list_with_offset(Some(&prefix), &offset).try_collect().await.unwrap();
                let found: Vec<_> = lister.list_with_offset(Some(&prefix), &offset).try_collect().await.unwrap();
                assert_eq!(names(found), names(expected), "from {version}");
            }
        }
    }

    #[test]
    fn only_the_log_is_asked_for_by_versions() {
        let wanted = |prefix: &str, offset: &str| wanted_version(Some(&Path::from(prefix)), &Path::from(offset));
        assert_eq!(wanted("a/_delta_log", "a/_delta_log/00000000000000000200"), Some(200));
        assert_eq!(wanted("a/_delta_log", "a/_delta_log/00000000000000000000"), None);
        assert_eq!(wanted("a/_delta_log", "a/_delta_log/00000000000000000200.json"), None);
        assert_eq!(wanted("a/b", "a/b/00000000000000000200"), None);
    }
}
