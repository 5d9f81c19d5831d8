package main

import (
	"fmt"
	"slices"
	"strings"
)

// connectKind is one protocol that the Connect conformance suite speaks with the
// gateway, and one server that speaks gRPC behind it.
type connectKind struct {
	server   string // its tool
	protocol string
	versions []int // of HTTP
	codecs   []string
	// compressions beside identity. JSON is translated and has those that the gateway
	// has; binary messages pass in whatever both ends have.
	compressions []string
	// halfDuplex also runs bidirectional streams over HTTP/1, one side after the other.
	halfDuplex bool
	// clientCerts also runs, in TLS, the cases with client certificates.
	clientCerts bool
	// schema gives the gateway the suite's descriptors, which JSON and GET need.
	schema bool
	// relayed are the versions of HTTP over which RPCs are relayed on frames; over the
	// others the gateway's handler has them.
	relayed []int
	// foreign is how many cases go to the handler all the same.
	foreign float64
}

// What the servers compress by.
var (
	goCompressions        = []string{"GZIP"}
	referenceCompressions = []string{"GZIP", "BR", "ZSTD", "DEFLATE", "SNAPPY"}
)

// connectKinds by the names of their suites.
var connectKinds = map[string]connectKind{
	"connect-grpc": {
		server: "grpcserver", protocol: "GRPC", versions: []int{2}, codecs: []string{"PROTO"}, compressions: goCompressions,
		clientCerts: true, relayed: []int{2},
		foreign: 2, // unexpected-verb, and a content type that is not gRPC's
	},
	"connect-web": {
		server: "grpcserver", protocol: "GRPC_WEB", versions: []int{1, 2}, codecs: []string{"PROTO"}, compressions: goCompressions,
		relayed: []int{2}, foreign: 2,
	},
	"connect-rpc": {
		server: "grpcserver", protocol: "CONNECT", versions: []int{1, 2}, codecs: []string{"PROTO", "JSON"}, compressions: goCompressions,
		halfDuplex: true, schema: true,
	},
	"reference-grpc": {
		server: "referenceserver", protocol: "GRPC", versions: []int{2}, codecs: []string{"PROTO"}, compressions: referenceCompressions,
		relayed: []int{2}, foreign: 2,
	},
	"reference-web": {
		server: "referenceserver", protocol: "GRPC_WEB", versions: []int{1, 2}, codecs: []string{"PROTO"}, compressions: referenceCompressions,
		halfDuplex: true, relayed: []int{2}, foreign: 2,
	},
	"reference-rpc": {
		server: "referenceserver", protocol: "CONNECT", versions: []int{1, 2}, codecs: []string{"PROTO", "JSON"}, compressions: referenceCompressions,
		halfDuplex: true, schema: true,
	},
}

// config is the file that the suite is given.
func (k connectKind) config(secure bool) string {
	versions := make([]string, len(k.versions))
	for i, v := range k.versions {
		versions[i] = fmt.Sprintf("HTTP_VERSION_%d", v)
	}
	var y strings.Builder
	fmt.Fprintf(&y, "features:\n  versions: [%s]\n  protocols: [PROTOCOL_%s]\n", strings.Join(versions, ", "), k.protocol)
	fmt.Fprintf(&y, "  codecs: [CODEC_%s]\n", strings.Join(k.codecs, ", CODEC_"))
	fmt.Fprintf(&y, "  compressions: [COMPRESSION_IDENTITY, COMPRESSION_%s]\n", strings.Join(k.compressions, ", COMPRESSION_"))
	// Without h2c the suite has no HTTP/2 in clear; HTTP/1 in clear it always has.
	fmt.Fprintf(&y, "  supportsH2c: %t\n  supportsTls: %t\n", !secure, secure)
	fmt.Fprintf(&y, "  supportsTlsClientCerts: %t\n  supportsHalfDuplexBidiOverHttp1: %t\n", secure && k.clientCerts, k.halfDuplex)
	fmt.Fprintf(&y, "exclude_cases:\n- useTls: %t\n", !secure)
	for _, c := range k.compressions {
		if slices.Contains(k.codecs, "JSON") && c != "GZIP" {
			fmt.Fprintf(&y, "- {codec: CODEC_JSON, compression: COMPRESSION_%s}\n", c)
		}
	}
	return y.String()
}

// checkPaths refuses a gateway whose RPCs went another way than they should have.
func (k connectKind) checkPaths(n shimNote) error {
	right := n.Paths.Handler > 0 && n.Paths.Relay == 0
	if slices.Contains(k.relayed, n.Version) {
		right = n.Paths.Relay > 0 && n.Paths.Handler <= k.foreign
	}
	if !right {
		return fmt.Errorf("%s over HTTP/%d: RPCs relayed %g, handled %g", k.protocol, n.Version, n.Paths.Relay, n.Paths.Handler)
	}
	return nil
}
