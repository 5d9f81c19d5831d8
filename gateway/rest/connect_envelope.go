package rest

import (
	"encoding/base64"
	"io"
	"strconv"
	"strings"

	"sluice/gateway/wire"
)

// flagEndStream marks the envelope that ends an answer and holds no message. It is the
// second bit, where gRPC-Web has the eighth.
const flagEndStream = 0x02

// envelopeReader takes the body of a streaming request apart. Memory is bounded by limit
// and by what has arrived, whatever a prefix announces.
type envelopeReader struct {
	body  io.Reader
	limit int
	buf   []byte
}

// next returns the next message, valid until the next call. The error is io.EOF at the
// end of the body, a *wire.Status for what breaks the protocol, and else the body's own.
func (e *envelopeReader) next() (data []byte, compressed bool, err error) {
	var prefix [wire.PrefixLen]byte
	if n, err := io.ReadFull(e.body, prefix[:]); err != nil {
		if err == io.ErrUnexpectedEOF {
			return nil, false, connectFault(wire.InvalidArgument, 0,
				"the request ends within an envelope: "+strconv.Itoa(n)+" of the 5 bytes of its prefix")
		}
		return nil, false, err
	}
	p, _ := wire.ParsePrefix(prefix[:])
	switch {
	case p.Flags&flagEndStream != 0:
		return nil, false, connectFault(wire.InvalidArgument, 0, "an envelope of the request is marked as the end of the stream, which only answers have")
	case p.Flags&^byte(wire.FlagCompressed) != 0:
		return nil, false, connectFault(wire.InvalidArgument, 0, "an envelope has the flags 0x"+strconv.FormatUint(uint64(p.Flags), 16)+", of which only 0x1 is defined")
	case int64(p.Length) > int64(e.limit):
		return nil, false, tooLarge("message", e.limit)
	}
	e.buf, err = appendAll(reuse(e.buf), io.LimitReader(e.body, int64(p.Length)), int(p.Length))
	if err != nil {
		return nil, false, err
	}
	if len(e.buf) < int(p.Length) {
		return nil, false, connectFault(wire.InvalidArgument, 0,
			"the request ends within an envelope: "+strconv.Itoa(len(e.buf))+" of "+strconv.FormatUint(uint64(p.Length), 10)+" bytes")
	}
	return e.buf, p.Flags&wire.FlagCompressed != 0, nil
}

// decodeURLBase64 reads base64 of the URL alphabet (RFC 4648, section 5), padded or not.
func decodeURLBase64(s string) ([]byte, error) {
	if i := strings.IndexAny(s, "\r\n"); i >= 0 { // which Go's decoder passes over
		return nil, base64.CorruptInputError(i)
	}
	if len(s)%4 == 0 {
		s = strings.TrimSuffix(strings.TrimSuffix(s, "="), "=")
	}
	return base64.RawURLEncoding.DecodeString(s)
}
