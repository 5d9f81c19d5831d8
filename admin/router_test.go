package admin

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// metricsPage stands for the metrics of a gateway.
var metricsPage = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	io.WriteString(w, "sluice_rpc_open 0\n")
})

func TestRouterAnswers(t *testing.T) {
	draining := func() error { return errors.New("draining: 3 streams are open") }
	ready := func() error { return nil }
	for _, tc := range []struct {
		name, method, target string
		cfg                  Config
		parts                Parts
		wantStatus           int
		wantBody             string // its beginning
	}{
		{"alive", "GET", "/healthz", Config{}, Parts{Ready: draining}, 200, "ok\n"},
		{"alive, no body", "HEAD", "/healthz", Config{}, Parts{}, 200, ""},
		{"ready", "GET", "/readyz", Config{}, Parts{Ready: ready}, 200, "ok\n"},
		{"ready when nobody says otherwise", "GET", "/readyz", Config{}, Parts{}, 200, "ok\n"},
		{"ready, no body", "HEAD", "/readyz", Config{}, Parts{Ready: ready}, 200, ""},
		{"draining", "GET", "/readyz", Config{}, Parts{Ready: draining}, 503, "draining: 3 streams are open\n"},
		{"draining, no body", "HEAD", "/readyz", Config{}, Parts{Ready: draining}, 503, ""},
		{"query", "GET", "/healthz?verbose=1", Config{}, Parts{}, 200, "ok\n"},

		{"metrics", "GET", "/metrics", Config{}, Parts{Metrics: metricsPage}, 200, "sluice_rpc_open 0\n"},
		{"no metrics", "GET", "/metrics", Config{}, Parts{}, 404, "not found\n"},

		{"profiles off", "GET", "/debug/pprof/", Config{}, Parts{}, 404, "not found\n"},
		{"a profile, off", "GET", "/debug/pprof/heap", Config{}, Parts{}, 404, "not found\n"},
		{"profiles", "GET", "/debug/pprof/", Config{Pprof: true}, Parts{}, 200, "<html>"},
		{"a profile", "GET", "/debug/pprof/goroutine?debug=1", Config{Pprof: true}, Parts{}, 200, "goroutine profile:"},
		{"command line", "GET", "/debug/pprof/cmdline", Config{Pprof: true}, Parts{}, 200, ""},
		{"symbols", "GET", "/debug/pprof/symbol", Config{Pprof: true}, Parts{}, 200, "num_symbols: 1"},
		{"unknown profile", "GET", "/debug/pprof/secrets", Config{Pprof: true}, Parts{}, 404, "not found\n"},

		{"root", "GET", "/", Config{}, Parts{}, 404, "not found\n"},
		{"unknown", "GET", "/nothing", Config{}, Parts{}, 404, "not found\n"},
		{"slash at the end", "GET", "/healthz/", Config{}, Parts{}, 404, "not found\n"},
		{"two slashes", "GET", "//healthz", Config{}, Parts{}, 404, "not found\n"},
		{"other case", "GET", "/Healthz", Config{}, Parts{}, 404, "not found\n"},
		{"up and down", "GET", "/x/../healthz", Config{}, Parts{}, 404, "not found\n"},
		{"up and down to profiles", "GET", "/debug/pprof/../../metrics", Config{Pprof: true}, Parts{Metrics: metricsPage}, 404, "not found\n"},

		{"post", "POST", "/healthz", Config{}, Parts{}, 405, "only GET and HEAD are allowed\n"},
		{"put", "PUT", "/readyz", Config{}, Parts{}, 405, "only GET and HEAD are allowed\n"},
		{"delete", "DELETE", "/nothing", Config{}, Parts{}, 405, "only GET and HEAD are allowed\n"},
		{"trace", "TRACE", "/metrics", Config{}, Parts{}, 405, "only GET and HEAD are allowed\n"},
		{"options", "OPTIONS", "/metrics", Config{}, Parts{}, 405, "only GET and HEAD are allowed\n"},
		{"options of everything", "OPTIONS", "*", Config{}, Parts{}, 405, "only GET and HEAD are allowed\n"},
		{"connect", "CONNECT", "x:443", Config{}, Parts{}, 405, "only GET and HEAD are allowed\n"},
		{"post to profiles", "POST", "/debug/pprof/symbol", Config{Pprof: true}, Parts{}, 405, "only GET and HEAD are allowed\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, body := open(t, tc.cfg, tc.parts).ask(t, tc.method, tc.target)
			if resp.StatusCode != tc.wantStatus || !strings.HasPrefix(body, tc.wantBody) {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, body, tc.wantStatus, tc.wantBody)
			}
			if tc.method == http.MethodHead && body != "" {
				t.Errorf("HEAD was answered with a body: %q", body)
			}
			if tc.wantStatus >= 400 && resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("error is %s, want plain text", resp.Header.Get("Content-Type"))
			}
			if tc.wantStatus == 405 && resp.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("Allow: %q", resp.Header.Get("Allow"))
			}
			wantSecure(t, resp.Header)
		})
	}
}

func wantSecure(t *testing.T, h http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"X-Content-Type-Options":  "nosniff",
		"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
		"Referrer-Policy":         "no-referrer",
		"Cache-Control":           "no-store",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestRouterNamesTheVersion(t *testing.T) {
	for version, want := range map[string]string{"1.2.3": "sluice/1.2.3", "": "sluice"} {
		resp, _ := open(t, Config{}, Parts{Version: version}).ask(t, "GET", "/healthz")
		if got := resp.Header.Get("Server"); got != want {
			t.Errorf("version %q: Server: %q, want %q", version, got, want)
		}
	}
}

// Every error ends in one place: the client learns what it may, the log the rest.
func TestRouterRefusesInOnePlace(t *testing.T) {
	cause := errors.New("file /secret: no such file")
	for _, tc := range []struct {
		name       string
		err        error
		wantStatus int
		wantBody   string
		wantLog    string
	}{
		{
			"an error that nobody foresaw", cause, 500, "internal error\n",
			`level=ERROR msg="admin request refused" method=GET path=/x status=500 error="file /secret: no such file"`,
		},
		{
			"a failure", &failure{status: 503, message: "draining"}, 503, "draining\n",
			`level=DEBUG msg="admin request refused" method=GET path=/x status=503 error=draining`,
		},
		{
			"a failure with a cause", fmt.Errorf("look: %w", &failure{status: 404, message: "no such thing", cause: cause}), 404, "no such thing\n",
			`level=DEBUG msg="admin request refused" method=GET path=/x status=404 error="look: no such thing: file /secret: no such file"`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log := new(journal)
			rt := newRouter(Config{}, Parts{}, nil, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
			rt.routes["/x"] = func(http.ResponseWriter, *http.Request) error { return tc.err }
			rec := httptest.NewRecorder()
			rt.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/x", nil))
			if rec.Code != tc.wantStatus || rec.Body.String() != tc.wantBody {
				t.Errorf("answered %d %q, want %d %q", rec.Code, rec.Body, tc.wantStatus, tc.wantBody)
			}
			if !strings.Contains(log.String(), tc.wantLog) {
				t.Errorf("logged %s, want %s", log, tc.wantLog)
			}
			if errors.Is(tc.err, cause) && strings.Contains(rec.Body.String(), "secret") {
				t.Error("the client was told the cause")
			}
		})
	}
}
