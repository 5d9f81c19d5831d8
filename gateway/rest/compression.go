package rest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"
	"sync"
)

// encodingGzip is the one encoding that the gateway itself reads and writes.
const encodingGzip = "gzip"

// growStep is how far a buffer runs ahead of what has arrived, bytes: a length that a
// peer announces reserves nothing.
const growStep = 32 << 10

var errTooLong = errors.New("longer than its limit")

// gunzipper is a reader that is used again, with the source that it reads.
type gunzipper struct {
	from bytes.Reader
	gz   gzip.Reader
}

var gunzippers = sync.Pool{New: func() any { return new(gunzipper) }}

// gunzip appends what src means, at most limit bytes: more is errTooLong, found after
// limit bytes whatever src could grow to. Other errors are about src.
func gunzip(dst, src []byte, limit int) ([]byte, error) {
	z := gunzippers.Get().(*gunzipper)
	defer gunzippers.Put(z)
	z.from.Reset(src)
	defer z.from.Reset(nil)
	if err := z.gz.Reset(&z.from); err != nil {
		return dst, noEOF(err)
	}
	return appendAll(dst, &z.gz, limit)
}

// appendAll appends what is left of in, at most limit bytes: more is errTooLong.
func appendAll(dst []byte, in io.Reader, limit int) ([]byte, error) {
	start := len(dst)
	for {
		room := limit - (len(dst) - start)
		dst = slices.Grow(dst, min(room+1, max(growStep, (len(dst)-start)/2)))
		// One byte more than allowed may come, and then is too much.
		space := dst[len(dst):min(cap(dst), len(dst)+room+1)]
		n, err := in.Read(space)
		if n > room {
			return dst, errTooLong
		}
		dst = dst[:len(dst)+n]
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
}

var gzippers = sync.Pool{New: func() any {
	// Speed first: what the gateway compresses, it compresses for every caller again.
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return z
}}

// gzipped appends src compressed.
func gzipped(dst, src []byte) []byte {
	z := gzippers.Get().(*gzip.Writer)
	defer gzippers.Put(z)
	out := bytes.NewBuffer(dst)
	z.Reset(out)
	z.Write(src) // a Buffer takes everything
	z.Close()
	z.Reset(nil)
	return out.Bytes()
}

// noEOF makes an end in the middle of something an error that says so.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
