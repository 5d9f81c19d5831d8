package rest

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"sluice/gateway/wire"
)

// ownFields are the fields of HTTP that are no metadata in either direction: what
// concerns one hop (RFC 9110, section 7.6.1), what describes the content, and what the
// protocols of the two sides say to each other. Prefixes are in ownPrefixes.
var ownFields = map[string]bool{
	"connection": true, "keep-alive": true, "proxy-connection": true, "proxy-authenticate": true,
	"proxy-authorization": true, "transfer-encoding": true, "upgrade": true, "te": true, "trailer": true,
	"http2-settings": true, "expect": true, "host": true, "forwarded": true,
}

// ownPrefixes begin the names of further such fields. x-forwarded-* is the gateway's to
// write, and nobody's to claim.
var ownPrefixes = []string{"content-", "accept-", "grpc-", "connect-", "x-forwarded-"}

// isMetadata tells the fields that callers and backends mean for each other. name is in
// lower case.
func isMetadata(name string) bool {
	if ownFields[name] || name == "accept" || name == "" || name[0] == ':' {
		return false
	}
	for _, p := range ownPrefixes {
		if strings.HasPrefix(name, p) {
			return false
		}
	}
	return true
}

// metadataOf returns what of a request's header is metadata of the RPC. The error is
// for a caller whose -bin field is not base64, which gRPC forbids.
func metadataOf(r *http.Request) (http.Header, *wire.Status) {
	nominated := nominatedBy(r.Header)
	md := make(http.Header, len(r.Header))
	for key, values := range r.Header {
		name := strings.ToLower(key)
		if !isMetadata(name) || nominated[name] {
			continue
		}
		if wire.IsBin(name) {
			for _, v := range values {
				if !wire.ValidBin(v) {
					return nil, &wire.Status{
						Code:    wire.InvalidArgument,
						Message: "sluice: header field " + strconv.Quote(name) + " is not base64, as the ending -bin demands",
						Gateway: true,
					}
				}
			}
		}
		md[key] = values
	}
	return md, nil
}

// nominatedBy returns the names that a Connection field takes for this hop alone.
func nominatedBy(h http.Header) map[string]bool {
	var names map[string]bool
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if names == nil {
				names = make(map[string]bool)
			}
			names[strings.ToLower(textproto.TrimString(name))] = true
		}
	}
	return names
}

// addMetadata adds a response's metadata to the fields of the answer, each name with
// prefix before it. What would pass for a field of the answer's own protocol is left out.
func addMetadata(answer http.Header, prefix string, md http.Header) {
	for key, values := range md {
		name := strings.ToLower(key)
		if !isMetadata(name) || prefix == "" && strings.HasPrefix(name, "trailer-") {
			continue
		}
		key = textproto.CanonicalMIMEHeaderKey(prefix + name)
		answer[key] = append(answer[key], values...)
	}
}
