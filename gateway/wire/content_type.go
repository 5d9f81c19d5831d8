package wire

import "strings"

// Kind is the protocol that a content type announces. It says nothing of the
// method or the path, which may still contradict it.
type Kind uint8

// The kinds of request that one port takes.
const (
	KindOther         Kind = iota // REST, a Connect unary call, a page, nothing at all
	KindGRPC                      // application/grpc
	KindGRPCWeb                   // application/grpc-web
	KindGRPCWebText               // application/grpc-web-text: base64 throughout
	KindConnectStream             // application/connect+codec
)

// KindOf tells the protocol of a request by its content-type field. Case does not
// matter in a media type (RFC 9110, section 8.3.1). The web types are tested
// before native gRPC, whose name is a prefix of theirs.
func KindOf(contentType string) Kind {
	switch {
	case IsGRPC(contentType):
		return KindGRPC
	case isMediaType(contentType, "application/grpc-web"):
		return KindGRPCWeb
	case isMediaType(contentType, "application/grpc-web-text"):
		return KindGRPCWebText
	case hasPrefixFold(contentType, "application/connect+"):
		return KindConnectStream
	}
	return KindOther
}

// IsGRPC tells native gRPC: application/grpc, with a codec ("+proto"), with
// parameters, or both. gRPC-Web is not native gRPC.
func IsGRPC(contentType string) bool { return isMediaType(contentType, "application/grpc") }

// IsGRPCWeb tells gRPC-Web, binary or text.
func IsGRPCWeb(contentType string) bool {
	k := KindOf(contentType)
	return k == KindGRPCWeb || k == KindGRPCWebText
}

// isMediaType tells whether contentType is base, then its end, a codec or
// parameters; anything else would be another type with the same beginning.
func isMediaType(contentType, base string) bool {
	if !hasPrefixFold(contentType, base) {
		return false
	}
	rest := contentType[len(base):]
	if rest == "" || rest[0] == '+' {
		return true
	}
	rest = strings.TrimLeft(rest, " \t")
	return rest == "" || rest[0] == ';'
}

// hasPrefixFold compares bytes first, because lower case is all that real clients
// send.
func hasPrefixFold(s, prefix string) bool {
	if len(s) < len(prefix) {
		return false
	}
	s = s[:len(prefix)]
	return s == prefix || strings.EqualFold(s, prefix)
}
