package store

import (
	"encoding/base64"
	"fmt"
	"strings"
)

const maxHeaderNameLen = 256

// A name that a modifier may not touch, and why. RFC 9113, section 8.2.2 has the
// connection-specific ones; the rest is the RPC's own business or the gateway's.
var reservedHeaders = map[string]string{
	"connection":        "belongs to one connection",
	"http2-settings":    "belongs to one connection",
	"keep-alive":        "belongs to one connection",
	"proxy-connection":  "belongs to one connection",
	"transfer-encoding": "belongs to one connection",
	"upgrade":           "belongs to one connection",
	"content-length":    "counts the body",
	"content-type":      "says which protocol the RPC speaks",
	"host":              "must agree with :authority",
	"te":                "is part of the gRPC protocol",
}

// checkHeaderName is for the name of a header to match on: a token (RFC 9110,
// section 5.6.2), in any case.
func checkHeaderName(s string) string {
	switch {
	case s == "":
		return "want the name of a header"
	case len(s) > maxHeaderNameLen:
		return fmt.Sprintf("%d bytes, limit %d", len(s), maxHeaderNameLen)
	case s[0] == ':':
		return "pseudo-headers are not headers"
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return "want letters, digits and !#$%&'*+-.^_`|~"
		}
	}
	return ""
}

// checkCookieName is for the name of a cookie: a token (RFC 6265, section 4.1.1).
func checkCookieName(s string) string {
	if s == "" {
		return "want the name of a cookie"
	}
	if s[0] == ':' {
		return "want letters, digits and !#$%&'*+-.^_`|~"
	}
	return checkHeaderName(s)
}

// checkModifiedName is for the name of a header to set, add or remove.
func checkModifiedName(s string) string {
	if problem := checkHeaderName(s); problem != "" {
		return problem
	}
	lower := strings.ToLower(s)
	if strings.HasPrefix(lower, "grpc-") {
		return "names that begin with grpc- are reserved for the protocol"
	}
	if why, reserved := reservedHeaders[lower]; reserved {
		return "cannot be modified: it " + why
	}
	return ""
}

// checkModifiedHTTPName is checkModifiedName for plain HTTP, where an RPC's business
// is anybody's.
func checkModifiedHTTPName(s string) string {
	if problem := checkHeaderName(s); problem != "" {
		return problem
	}
	switch lower := strings.ToLower(s); lower {
	case "content-type", "host":
		return ""
	default:
		if why, reserved := reservedHeaders[lower]; reserved {
			return "cannot be modified: it " + why
		}
	}
	return ""
}

// checkModifiedValue is for a value to send: gRPC's ASCII-Value, or base64 where
// the name ends in "-bin".
func checkModifiedValue(name, s string) string {
	switch {
	case s == "":
		return "want a value"
	case len(s) > maxHeaderValueLen:
		return fmt.Sprintf("%d bytes, limit %d", len(s), maxHeaderValueLen)
	case s[0] == ' ' || s[len(s)-1] == ' ':
		return "want no blank at either end"
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return "want printable ASCII"
		}
	}
	if strings.HasSuffix(strings.ToLower(name), "-bin") && !isBase64List(s) {
		return `want base64, since the name ends in "-bin"`
	}
	return ""
}

// isBase64List takes padded and unpadded values, with commas between them.
func isBase64List(s string) bool {
	for value := range strings.SplitSeq(s, ",") {
		enc := base64.RawStdEncoding
		if strings.HasSuffix(value, "=") {
			enc = base64.StdEncoding
		}
		if _, err := enc.DecodeString(strings.TrimSpace(value)); err != nil {
			return false
		}
	}
	return true
}

// checkMatchedValue is for a value to compare with: what HTTP/2 can carry.
func checkMatchedValue(s string) string {
	switch {
	case s == "":
		return "want a value"
	case len(s) > maxHeaderValueLen:
		return fmt.Sprintf("%d bytes, limit %d", len(s), maxHeaderValueLen)
	}
	return checkControls(s)
}
