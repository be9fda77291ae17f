//! Online Label Smoothing.
