package wire

import (
	"math"
	"strconv"
)

// Code is a grpc-status. A peer may send any number: what is above
// Unauthenticated has no meaning and must be clamped before it indexes a table.
type Code uint32

// The codes that gRPC defines, under their numbers on the wire.
const (
	OK Code = iota
	Canceled
	Unknown
	InvalidArgument
	DeadlineExceeded
	NotFound
	AlreadyExists
	PermissionDenied
	ResourceExhausted
	FailedPrecondition
	Aborted
	OutOfRange
	Unimplemented
	Internal
	Unavailable
	DataLoss
	Unauthenticated

	// NumCodes is how many codes gRPC defines; they are 0 to NumCodes-1.
	NumCodes = 17
)

// codes holds, for each code, its canonical name and the HTTP status of a REST
// reply. The statuses are those on which Envoy, grpc-gateway and vanguard agree;
// FAILED_PRECONDITION is deliberately not 412, which is about conditional
// requests.
var codes = [NumCodes]struct {
	name string
	http int
}{
	OK:                 {"OK", 200},
	Canceled:           {"CANCELLED", 499}, // nginx's "client closed request"
	Unknown:            {"UNKNOWN", 500},
	InvalidArgument:    {"INVALID_ARGUMENT", 400},
	DeadlineExceeded:   {"DEADLINE_EXCEEDED", 504},
	NotFound:           {"NOT_FOUND", 404},
	AlreadyExists:      {"ALREADY_EXISTS", 409},
	PermissionDenied:   {"PERMISSION_DENIED", 403},
	ResourceExhausted:  {"RESOURCE_EXHAUSTED", 429},
	FailedPrecondition: {"FAILED_PRECONDITION", 400},
	Aborted:            {"ABORTED", 409},
	OutOfRange:         {"OUT_OF_RANGE", 400},
	Unimplemented:      {"UNIMPLEMENTED", 501},
	Internal:           {"INTERNAL", 500},
	Unavailable:        {"UNAVAILABLE", 503},
	DataLoss:           {"DATA_LOSS", 500},
	Unauthenticated:    {"UNAUTHENTICATED", 401},
}

// String is the canonical spelling, "CANCELLED"; a code that gRPC does not
// define is "CODE_17" with its number. It allocates for those, and the number is
// the peer's choice: a metric wants Label.
func (c Code) String() string {
	if c < NumCodes {
		return codes[c].name
	}
	return "CODE_" + strconv.FormatUint(uint64(c), 10)
}

// Label is String for a metric: one of NumCodes words, whatever a peer sent.
func (c Code) Label() string { return codes[c.Clamp()].name }

// Clamp makes a code safe as an index below NumCodes. What gRPC does not define
// becomes Unknown, as gRPC's own libraries have it.
func (c Code) Clamp() Code {
	if c < NumCodes {
		return c
	}
	return Unknown
}

// ParseStatus reads the value of a grpc-status field: decimal digits only. A
// number above the defined codes is accepted as it is; what is no number, or
// passes 32 bits, is Unknown and false.
func ParseStatus(s string) (Code, bool) {
	if s == "" || len(s) > len("4294967295") {
		return Unknown, false
	}
	var n uint64
	for i := range len(s) {
		c := s[i] - '0'
		if c > 9 {
			return Unknown, false
		}
		n = n*10 + uint64(c)
	}
	if n > math.MaxUint32 {
		return Unknown, false
	}
	return Code(n), true
}

// AppendStatus appends the value of a grpc-status field.
func AppendStatus(b []byte, c Code) []byte {
	return strconv.AppendUint(b, uint64(c), 10)
}

// HTTPStatus is the status of an HTTP reply that says c to a caller who does not
// speak gRPC.
func HTTPStatus(c Code) int { return codes[c.Clamp()].http }

// FromHTTP is the code of an HTTP reply that brought no grpc-status. It is not
// the inverse of HTTPStatus. Status mapping: the table is for replies that "might
// have come from a proxy", and holds for them only. 200 is among the rest: a
// reply without a status has not succeeded.
func FromHTTP(status int) Code {
	switch status {
	case 400, 431:
		return Internal
	case 401:
		return Unauthenticated
	case 403:
		return PermissionDenied
	case 404:
		return Unimplemented
	case 429, 502, 503, 504:
		return Unavailable
	}
	return Unknown
}

// FromREST is the code of an HTTP reply by a server that means what it says: it did
// answer, and no proxy on the way. It reads HTTPStatus the other way, as Google's APIs
// do where several codes have one status, and takes the other statuses for what RFC
// 9110 says of them.
func FromREST(status int) Code {
	switch status {
	case 400, 422:
		return InvalidArgument
	case 401:
		return Unauthenticated
	case 403:
		return PermissionDenied
	case 404, 410:
		return NotFound
	case 405, 501:
		return Unimplemented
	case 408, 504:
		return DeadlineExceeded
	case 409:
		return Aborted
	case 413, 429:
		return ResourceExhausted
	case 416:
		return OutOfRange
	case 499:
		return Canceled
	case 502, 503:
		return Unavailable
	}
	switch status / 100 {
	case 1, 2, 3:
		return OK
	case 4:
		return FailedPrecondition // it will not get better by itself
	case 5:
		return Internal
	}
	return Unknown
}

// The HTTP/2 error codes (RFC 9113, section 7) that mean more than INTERNAL.
const (
	resetRefusedStream      = 0x7
	resetCancel             = 0x8
	resetEnhanceYourCalm    = 0xb
	resetInadequateSecurity = 0xc
)

// FromReset is the code of a stream that the peer ended by RST_STREAM with this
// HTTP/2 error code, unknown ones and NO_ERROR included. (PROTOCOL-HTTP2,
// "Errors".)
func FromReset(errCode uint32) Code {
	switch errCode {
	case resetRefusedStream:
		return Unavailable
	case resetCancel:
		return Canceled
	case resetEnhanceYourCalm:
		return ResourceExhausted
	case resetInadequateSecurity:
		return PermissionDenied
	}
	return Internal
}
