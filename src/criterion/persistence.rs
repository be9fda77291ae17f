//! Saving and loading: a file, or its bytes.
#![allow(unsafe_code, reason = "state is made without memory of the caller's")]

use std::path::Path;

use super::Criterion;
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::state::{State, StateMemory};
use crate::statistics::Report;
use crate::stream::CudaStream;

impl Criterion {
    /// Writes state, epoch and the options that shape the result to a file in the safetensors format; atomically: whatever happens, the name
    /// stands for the old file or for the whole new one.
    ///
    /// # Errors
    /// What the system says of the file; no memory for its bytes; a state that could not be loaded, such as negative sums after a batch was taken back
    /// that had not been added. The old file is as it was then.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_on(path, CudaStream::LEGACY)
    }

    /// As [`save`](Self::save), waiting for `stream` on a CUDA device.
    ///
    /// # Errors
    /// As [`save`](Self::save); what CUDA reports.
    pub fn save_on(&self, path: impl AsRef<Path>, stream: CudaStream) -> Result<()> {
        self.with_host_state(stream, |state| checkpoint::save(&self.options, state, self.epoch, path.as_ref()))
    }

    /// Runs `body` on the state in host memory: its own, or a copy from the device.
    fn with_host_state<R>(&self, stream: CudaStream, body: impl FnOnce(&State) -> Result<R>) -> Result<R> {
        match &self.cuda {
            Some(cuda) => body(&cuda.download(&self.state, stream)?),
            None => body(&self.state),
        }
    }

    /// Reads what [`save`](Self::save) wrote. Mode, reduction, device and threads stay; everything else becomes as it was saved.
    ///
    /// # Errors
    /// A file that cannot be read, is truncated, corrupted or foreign, or has another number of classes. The criterion is as before then.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.load_on(path, CudaStream::LEGACY)
    }

    /// As [`load`](Self::load), on `stream` on a CUDA device, which is waited for.
    ///
    /// # Errors
    /// As [`load`](Self::load); what CUDA reports.
    pub fn load_on(&mut self, path: impl AsRef<Path>, stream: CudaStream) -> Result<()> {
        let path = path.as_ref();
        checkpoint::read(path, &self.options)
            .and_then(|bytes| self.load_bytes_on(&bytes, stream))
            .map_err(|error| Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// How many bytes [`save`](Self::save) writes. Reads no state, and waits for nothing.
    pub(crate) fn saved_size(&self) -> Result<usize> {
        checkpoint::size(&self.options, self.epoch)
    }

    /// The bytes that [`save`](Self::save) writes.
    ///
    /// # Errors
    /// No memory for the bytes; a state that could not be loaded.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.to_bytes_on(CudaStream::LEGACY)
    }

    /// As [`to_bytes`](Self::to_bytes), waiting for `stream` on a CUDA device.
    ///
    /// # Errors
    /// As [`to_bytes`](Self::to_bytes); what CUDA reports.
    pub fn to_bytes_on(&self, stream: CudaStream) -> Result<Vec<u8>> {
        self.with_host_state(stream, |state| checkpoint::to_bytes(&self.options, state, self.epoch))
    }

    /// As [`load`](Self::load), from the bytes of a file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.load_bytes_on(bytes, CudaStream::LEGACY)
    }

    /// As [`load_bytes`](Self::load_bytes), on `stream` on a CUDA device, which is waited for.
    ///
    /// # Errors
    /// As [`load_bytes`](Self::load_bytes); what CUDA reports.
    pub fn load_bytes_on(&mut self, bytes: &[u8], stream: CudaStream) -> Result<()> {
        let loaded = checkpoint::parse(bytes, &self.options)?;
        if let Some(cuda) = &mut self.cuda {
            // SAFETY: no memory of the caller's is named.
            let mut copy = unsafe { State::new(self.options.classes, &StateMemory::default())? };
            loaded.write_to(&mut copy);
            cuda.load(&loaded.options, &copy, &self.state, stream)?;
        } else {
            loaded.write_to(&mut self.state);
        }
        self.epoch = loaded.epoch;
        self.finished = Report::default();
        self.options = loaded.options;
        Ok(())
    }
}
