package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"sluice/gateway/wire"
)

// refuse answers in the caller's own protocol that only native gRPC is served.
func refuse(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		// net/http would wait for the body before it lets the answer go.
		w.Header().Set("Connection", "close")
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
	}
	const why = "sluice: this port serves gRPC over HTTP/2"
	ct := r.Header.Get("Content-Type")
	switch {
	case wire.IsGRPC(ct) && r.ProtoMajor == 1:
		w.Header().Set("Content-Type", ct)
		w.Header().Set("Grpc-Status", "13")
		w.Header().Set("Grpc-Message", string(wire.AppendMessage(nil, why+"; gRPC needs HTTP/2")))
		w.WriteHeader(http.StatusHTTPVersionNotSupported)
	case wire.IsGRPC(ct):
		w.Header().Set("Content-Type", ct)
		w.Header().Set("Allow", http.MethodPost)
		w.Header().Set("Grpc-Status", "13")
		w.Header().Set("Grpc-Message", string(wire.AppendMessage(nil, why+"; the method must be POST")))
		w.WriteHeader(http.StatusMethodNotAllowed)
	case wire.IsGRPCWeb(ct):
		// Trailers-only, which gRPC-Web keeps in the header section.
		w.Header().Set("Content-Type", ct)
		w.Header().Set("Grpc-Status", "12")
		w.Header().Set("Grpc-Message", string(wire.AppendMessage(nil, why+"; gRPC-Web is not served yet")))
		w.WriteHeader(http.StatusOK)
	case strings.HasPrefix(ct, "application/json") || strings.HasPrefix(ct, "application/connect+") || strings.HasPrefix(ct, "application/proto"):
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnsupportedMediaType)
		fmt.Fprintf(w, "{\"code\":\"unimplemented\",\"message\":%q}\n", why)
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(http.StatusUnsupportedMediaType)
		fmt.Fprintln(w, why)
	}
}
