package h2

import (
	"errors"
	"strconv"
)

// Head is a decoded header or trailer section that keeps RFC 9113 section 8. It is
// valid only during the call that hands it over; the strings in it may be kept.
type Head struct {
	// Fields in order of arrival, pseudo-fields first.
	Fields []Field

	Method, Scheme, Authority, Path string // of a request
	Status                          int    // of a response

	ContentType string
	Timeout     string // grpc-timeout
	Timed       bool   // grpc-timeout is there, be it empty
	GRPCStatus  string // grpc-status
	// ContentLength is -1 when the section does not declare one.
	ContentLength int64
	// Large is true when the section went past our limits: Fields is then cut short.
	Large bool
	// BadBinary is true when a -bin field is not base64, which gRPC forbids.
	BadBinary bool

	host string
	seen uint16 // bits of the kinds that may come once
}

// Get returns the value of the first regular field of that name.
func (h *Head) Get(name string) (value string, ok bool) {
	for i := range h.Fields {
		if f := &h.Fields[i]; f.Name == name {
			return f.Value, true
		}
	}
	return "", false
}

// Values calls f with the value of each regular field of that name, in order.
func (h *Head) Values(name string, f func(value string)) {
	for i := range h.Fields {
		if h.Fields[i].Name == name {
			f(h.Fields[i].Value)
		}
	}
}

var (
	errBadField       = errors.New("forbidden character in a field")
	errConnField      = errors.New("connection-specific field")
	errDuplicateField = errors.New("field that may come once came twice")
	errLatePseudo     = errors.New("pseudo-field after a regular field")
	errPseudo         = errors.New("pseudo-field that does not belong here")
	errMissingPseudo  = errors.New("pseudo-field missing")
	errHost           = errors.New("host differs from :authority")
	errLength         = errors.New("content-length is not a number")
	errConnect        = errors.New("method CONNECT is not supported")
)

// read fills h from the fields of one section and checks what all sections have
// in common.
func (h *Head) read(fields []Field) error {
	*h = Head{Fields: fields, ContentLength: -1}
	regular := false
	for i := range fields {
		f := &fields[i]
		switch {
		case f.kind == kindPlain:
			regular = true
			continue
		case f.kind == kindBad:
			return errBadField
		case f.kind == kindConnection:
			return errConnField
		case f.kind.pseudo():
			if regular {
				return errLatePseudo
			}
			if f.kind == kindPseudo {
				return errPseudo
			}
		default:
			regular = true
		}
		if err := h.note(f); err != nil {
			return err
		}
	}
	return nil
}

// note takes the fields that mean something to us.
func (h *Head) note(f *Field) error {
	switch f.kind {
	case kindVolatile, kindForwarding:
		return nil
	case kindBadBinary:
		h.BadBinary = true
		return nil
	case kindMethod:
		h.Method = f.Value
	case kindScheme:
		h.Scheme = f.Value
	case kindAuthority:
		h.Authority = f.Value
	case kindPath:
		h.Path = f.Value
	case kindStatus:
		h.Status, _ = strconv.Atoi(f.Value) // three digits: classify saw to it
	case kindHost:
		h.host = f.Value
	case kindContentType:
		h.ContentType = f.Value
	case kindTimeout:
		h.Timeout, h.Timed = f.Value, true
	case kindStatusGRPC:
		h.GRPCStatus = f.Value
	case kindContentLength:
		n, err := strconv.ParseUint(f.Value, 10, 63)
		if err != nil || !digits(f.Value) {
			return errLength
		}
		h.ContentLength = int64(n)
	}
	bit := uint16(1) << (f.kind % 16)
	if h.seen&bit != 0 {
		return errDuplicateField
	}
	h.seen |= bit
	return nil
}

// readRequest checks the section that opens a stream, section 8.3.1.
func (h *Head) readRequest(fields []Field) error {
	if err := h.read(fields); err != nil {
		return err
	}
	switch {
	case h.Status != 0:
		return errPseudo
	case h.Method == "CONNECT":
		return errConnect
	case h.Method == "" || h.Scheme == "" || h.Path == "":
		return errMissingPseudo
	case h.Path == "*" && h.Method != "OPTIONS":
		return errBadField
	case h.has(kindAuthority) && h.Authority == "":
		return errBadField // RFC 9110 section 4.2.1: no http URI has an empty host
	case h.has(kindHost) && !h.has(kindAuthority):
		if !validAuthority(h.host) {
			return errBadField
		}
		h.Authority = h.host
	case h.has(kindHost) && h.host != h.Authority:
		return errHost
	}
	return nil
}

// has reports whether a field of that kind has been noted.
func (h *Head) has(k kind) bool { return h.seen&(1<<(k%16)) != 0 }

// readResponse checks the section that answers a request, section 8.3.2.
func (h *Head) readResponse(fields []Field) error {
	if err := h.read(fields); err != nil {
		return err
	}
	if h.has(kindMethod) || h.has(kindScheme) || h.has(kindPath) || h.has(kindAuthority) {
		return errPseudo
	}
	if h.Status < 100 || h.Status == 101 {
		return errMissingPseudo
	}
	return nil
}

// readTrailers checks the section that ends a stream, section 8.1: it has no
// pseudo-fields.
func (h *Head) readTrailers(fields []Field) error {
	if err := h.read(fields); err != nil {
		return err
	}
	if len(fields) > 0 && fields[0].kind.pseudo() {
		return errPseudo
	}
	return nil
}
