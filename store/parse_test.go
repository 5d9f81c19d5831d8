package store

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestParseGolden(t *testing.T) { golden(t, "testdata/*.golden", parsed) }

// routeText is a route with this spec, in flow style.
func routeText(spec string) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: r}\nspec: " + spec + "\n"
}

// httpText is an HTTPRoute with this rule, in flow style.
func httpText(rule string) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec: {rules: [{" + rule + "}]}\n"
}

// policyText is an RPCPolicy with these fields beside its target.
func policyText(fields string) string {
	return "apiVersion: sluice.dev/v1alpha1\nkind: RPCPolicy\nmetadata: {name: p}\n" +
		"spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: r}]" + fields + "}\n"
}

func ruleText(rule string) string { return routeText("{rules: [{" + rule + "}]}") }

// TestParseHoldsLimits has each limit twice: what just fits, and one more.
func TestParseHoldsLimits(t *testing.T) {
	list := func(entry string) func(n int) string {
		return func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat(entry+", ", n), ", ") + "]" }
	}
	numbered := func(format string) func(n int) string {
		return func(n int) string {
			var entries []string
			for i := range n {
				entries = append(entries, fmt.Sprintf(format, i))
			}
			return "[" + strings.Join(entries, ", ") + "]"
		}
	}
	letters := func(n int) string { return strings.Repeat("a", n) }
	name := func(n int) string { return strings.Repeat("a.", n)[:n] }
	matches := func(n int) string { // in two rules
		return fmt.Sprintf("[{matches: %s}, {matches: %s}]", list("{}")(n-n/2), list("{}")(n/2))
	}
	tests := []struct {
		name   string
		limit  int
		format string // of a whole text, or of a rule when it begins with {
		value  func(n int) string
		want   string
	}{
		{"parentRefs", 32, routeText("{parentRefs: %s}"), list("{name: a}"), "f:4:20: spec.parentRefs: 33 entries, limit 32"},
		{"hostnames", 16, routeText("{hostnames: %s}"), list("a"), "f:4:19: spec.hostnames: 17 entries, limit 16"},
		{"rules", 16, routeText("{rules: %s}"), list("{}"), "f:4:15: spec.rules: 17 entries, limit 16"},
		{"matches", 64, ruleText("matches: %s"), list("{}"), "f:4:26: spec.rules[0].matches: 65 entries, limit 64"},
		{"matches of a route", 128, routeText("{rules: %s}"), matches, "f:4:26: spec.rules[0].matches: 65 entries, limit 64"},
		{"headers", 16, ruleText("matches: [{headers: %s}]"), numbered("{name: x-%d, value: a}"), "f:4:37: spec.rules[0].matches[0].headers: 17 entries, limit 16"},
		{"filters", 16, ruleText("filters: %s"), list("{type: RequestMirror}"), ""},
		{"backendRefs", 16, ruleText("backendRefs: %s"), list("{name: a}"), "f:4:30: spec.rules[0].backendRefs: 17 entries, limit 16"},
		{"set", 16, ruleText("filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: %s}}]"), numbered("{name: x-%d, value: a}"), "f:4:86: spec.rules[0].filters[0].requestHeaderModifier.set: 17 entries, limit 16"},
		{"name", 253, backendText("%s", ""), name, `f:3:18: metadata.name: "` + strings.Repeat("a.", 32) + `"…: 254 bytes, limit 253`},
		{"namespace", 63, backendText("a", ", namespace: %s"), letters, `f:3:32: metadata.namespace: "` + letters(64) + `": 64 bytes, limit 63`},
		{"kind", 63, ruleText("backendRefs: [{name: a, group: g, kind: %s}]"), letters, ""},
		{"hostname", 253, routeText("{hostnames: [%s]}"), name, `f:4:20: spec.hostnames[0]: "` + strings.Repeat("a.", 32) + `"…: 254 bytes, limit 253`},
		{"host", 253, "apiVersion: sluice.dev/v1alpha1\nkind: Backend\nmetadata: {name: a}\nspec: {endpoints: [{address: '%s:1'}]}", name, `f:4:30: spec.endpoints[0].address: "` + strings.Repeat("a.", 32) + `"…: a host of 254 bytes, limit 253`},
		{"service", 1024, ruleText("matches: [{method: {service: %s}}]"), letters, `f:4:46: spec.rules[0].matches[0].method.service: 1025 bytes, limit 1024`},
		{"header name", 256, ruleText("matches: [{headers: [{name: %s, value: a}]}]"), letters, `f:4:45: spec.rules[0].matches[0].headers[0].name: "` + letters(64) + `"…: 257 bytes, limit 256`},
		{"header value", 4096, ruleText("matches: [{headers: [{name: a, value: %s}]}]"), letters, `f:4:55: spec.rules[0].matches[0].headers[0].value: "` + letters(64) + `"…: 4097 bytes, limit 4096`},
		{"path", 1024, httpText("matches: [{path: {value: /%s}}]"), func(n int) string { return letters(n - 1) }, `f:4:42: spec.rules[0].matches[0].path.value: "/` + letters(63) + `"…: 1025 bytes, limit 1024`},
		{"pattern of a path", 1024, httpText("matches: [{path: {type: RegularExpression, value: %s}}]"), letters, `f:4:67: spec.rules[0].matches[0].path.value: "` + letters(64) + `"…: 1025 bytes, limit 1024`},
		{"query parameters", 16, httpText("matches: [{queryParams: %s}]"), numbered("{name: x%d, value: a}"), "f:4:41: spec.rules[0].matches[0].queryParams: 17 entries, limit 16"},
		{"query parameter", 1024, httpText("matches: [{queryParams: [{name: a, value: %s}]}]"), letters, `f:4:59: spec.rules[0].matches[0].queryParams[0].value: "` + letters(64) + `"…: 1025 bytes, limit 1024`},
		{"matches of an HTTPRoute", 64, httpText("matches: %s"), list("{}"), "f:4:26: spec.rules[0].matches: 65 entries, limit 64"},
		{"origins", 64, httpText("filters: [{type: CORS, cors: {allowOrigins: %s}}]"), numbered("'http://a%d'"), "f:4:61: spec.rules[0].filters[0].cors.allowOrigins: 65 entries, limit 64"},
		{"origin", 253, httpText("filters: [{type: CORS, cors: {allowOrigins: ['http://%s']}}]"), func(n int) string { return letters(n - 7) }, `f:4:62: spec.rules[0].filters[0].cors.allowOrigins[0]: "http://` + letters(57) + `"…: 254 bytes, limit 253`},
		{"targets", 16, "apiVersion: sluice.dev/v1alpha1\nkind: RPCPolicy\nmetadata: {name: p}\nspec: {targetRefs: %s}", numbered("{group: gateway.networking.k8s.io, kind: GRPCRoute, name: r%d}"), "f:4:20: spec.targetRefs: 17 entries, limit 16"},
		{"attempts", 10, policyText(", retry: {attempts: %s}"), strconv.Itoa, "f:4:102: spec.retry.attempts: 11 is out of range, want 1 to 10"},
		{"budget", 100, policyText(", retryConstraint: {budget: {percent: %s}}"), strconv.Itoa, "f:4:120: spec.retryConstraint.budget.percent: 101 is out of range, want 0 to 100"},
		{"sticky header", 256, policyText(", split: {sticky: {header: %s}}"), letters, `f:4:109: spec.split.sticky.header: "` + letters(64) + `"…: 257 bytes, limit 256`},
		{"modified value", 4096, ruleText("filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: a, value: %s}]}}]"), letters, `f:4:104: spec.rules[0].filters[0].requestHeaderModifier.add[0].value: 4097 bytes, limit 4096`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == "" { // both are faulty; one of them for the limit too
				_, fits := Parse("f", fmt.Appendf(nil, tt.format, tt.value(tt.limit)))
				_, more := Parse("f", fmt.Appendf(nil, tt.format, tt.value(tt.limit+1)))
				limit := fmt.Sprintf(", limit %d", tt.limit)
				if strings.Contains(fits.Error(), limit) || !strings.Contains(more.Error(), limit) {
					t.Errorf("%d: %v\n%d: %v", tt.limit, fits, tt.limit+1, more)
				}
				return
			}
			if _, faults := Parse("f", fmt.Appendf(nil, tt.format, tt.value(tt.limit))); faults != nil {
				t.Errorf("%d: %v", tt.limit, faults)
			}
			if _, faults := Parse("f", fmt.Appendf(nil, tt.format, tt.value(tt.limit+1))); faults.Error() != tt.want {
				t.Errorf("%d: got %v\nwant %s", tt.limit+1, faults, tt.want)
			}
		})
	}
	three := fmt.Sprintf("[{matches: %[1]s}, {matches: %[1]s}, {matches: [{}]}]", list("{}")(64))
	if _, faults := Parse("f", []byte(routeText("{rules: "+three+"}"))); faults.Error() != "f:4:15: spec.rules: 129 matches in all rules, limit 128" {
		t.Errorf("129 matches in three rules: got %v", faults)
	}
}

func TestParseTakesCertificates(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	text := func(ca string) string {
		return strings.Replace(backendText("a", ""), "[]", "[], protocol: tls, tls: {ca: "+fmt.Sprintf("%q", ca)+"}", 1)
	}
	set := mustParse(t, text("# first\n"+cert+"\n"+cert))
	if got := set.Backends[0].Spec.TLS.CA; got != "# first\n"+cert+"\n"+cert {
		t.Errorf("got %q", got)
	}
	_, faults := Parse("f", []byte(text(cert+"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n")))
	if want := "f:4:48: spec.tls.ca: want certificates in PEM, not a EC PRIVATE KEY"; faults.Error() != want {
		t.Errorf("got %v\nwant %s", faults, want)
	}
}

// What FuzzParse grants a text: the time is generous, for a machine that does much
// else, and the memory allows for the largest regular expressions.
const (
	fuzzTime   = 10 * time.Second
	fuzzMemory = 512 << 20 // bytes allocated in all, beside fuzzFactor for each of the text
	fuzzFactor = 4 << 10
)

// FuzzParse holds for every text: no panic; bounded time and memory; either a set or
// faults; what is accepted is accepted again, with the same meaning, when we write it,
// and Decode reads the same; a fault is one printable line whose place is in the text.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", "a", "---\n...\n", "{}", "[", "- - - -", "? a\n: b", "a: &a [*a]", "a: &a {<<: *a}", "!!binary a: !x b",
		oneOfEach, httpText("matches: [{path: {type: RegularExpression, value: a*}, method: GET, queryParams: [{name: a, value: b}]}], timeouts: {backendRequest: 99999h}"),
		httpText("filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a}, fraction: {numerator: 1}}}, {type: CORS, cors: {allowOrigins: ['http://*'], maxAge: 7}}]"),
		httpText("filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /%41}}}], matches: [{path: {value: /}}]"),
		policyText(", timeouts: {request: 1h1m1s1ms}, retry: {attempts: 1}, retryConstraint: {budget: {}}, split: {sticky: {header: A}}"),
		"metadata: {creationTimestamp: 9999-12-31T23:59:59-23:59, name: a}\nkind: Gateway\napiVersion: gateway.networking.k8s.io/v1",
		splitRoute, backendText("a", ""), splitRoute + "---\n" + backendText("cart-v1", ", labels: {a: b}"),
		ruleText(`matches: [{method: {type: RegularExpression, method: "\\Q("}, headers: [{name: X-a, value: "\t"}]}]`),
		ruleText("filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: a-bin, value: AA==}], remove: [A]}}]"),
		ruleText("backendRefs: [{name: a, weight: 0x7fffffffffffffff}, {weight: .nan}, {weight: -.inf}, {weight: 1e400}]"),
		strings.Replace(backendText("a", ""), "[]", `[{address: "[::1]:1"}, {address: "a:99999999999999999999"}], protocol: tls, tls: {ca: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}`, 1),
		takesText("a", "{maxEndpoints: 1, maxLease: 24h}"), policyText(", retry: {attempts: 1, backoff: {base: 1h}}, hedging: {delay: 1ms}, rateLimits: [{requests: 1, key: {header: A}}]"),
		strings.Replace(backendText("a", ""), "[]", "[], loadBalancing: {policy: RingHash, hashOn: {path: true}, slowStart: {window: 1s, exponent: 00.1}, panicThreshold: 0}", 1),
		strings.Replace(backendText("a", ""), "[]", "[], dns: {srv: _a._tcp.b., server: '[::1]:53'}, healthCheck: {http: {path: /?a}}, outlierDetection: {successRate: {deviations: 1.90}}", 1),
		"\xff", "\x00", "\ufeff{", "a: \u0085b\u2028c", "%YAML 1.1\n---\n%TAG ! x:\n--- !a b", `{"a": "\ud83d\ude00\/"}`,
		"apiVersion: v1\nkind: List\nitems: [~, {kind: List}, 1]", "a: 'b\n---\nc'", "a: |\n  b\n...\n%", "metadata: {creationTimestamp: 2026-01-01}\nkind: Backend",
	} {
		f.Add([]byte(text))
	}
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		checkGroups(t, text)
		set, faults := parseBounded(t, text)
		if (set == nil) != (len(faults) > 0) {
			t.Fatalf("set %v beside faults %v, want one of the two", set, faults)
		}
		for i, fault := range faults {
			checkFault(t, fault, text, i == maxFaults)
		}
		if set == nil {
			return
		}
		checkAgain(t, set)
		for _, r := range set.Resources() {
			checkDecode(t, r)
		}
	})
}

// parseBounded is Parse, within its time and memory.
func parseBounded(t *testing.T, text []byte) (set *Set, faults Faults) {
	t.Helper()
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	allocated := func() uint64 {
		metrics.Read(samples)
		return samples[0].Value.Uint64()
	}
	begin, before := time.Now(), allocated()
	set, faults = Parse("f", text)
	if took := time.Since(begin); took > fuzzTime {
		t.Errorf("%d bytes took %s, limit %s", len(text), took, fuzzTime)
	}
	if used, limit := allocated()-before, uint64(fuzzMemory+fuzzFactor*len(text)); used > limit {
		t.Errorf("%d bytes allocated %d, limit %d", len(text), used, limit)
	}
	return set, faults
}

// FuzzDecode holds for whatever a damaged store may hand over: no panic, and either a
// resource or an error.
func FuzzDecode(f *testing.F) {
	set, faults := Parse("f", []byte(oneOfEach))
	if faults != nil {
		f.Fatal(faults)
	}
	for _, r := range set.Resources() {
		manifest, err := r.MarshalJSON()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(r.Kind(), manifest)
	}
	f.Add("", []byte("{}"))
	f.Add(RegistrationKind, []byte(`{"metadata": {"name": "r"}, "spec": {"backend": "b", "address": "[::1]:1", "weight": 4294967295, "lease": "1s"}}`))
	f.Add(BackendKind, []byte(`{"metadata": {}, "spec": {"endpoints": null, "registration": {}, "loadBalancing": {"slowStart": {"exponent": 1e308}}}}`))
	f.Add(RPCPolicyKind, []byte(`{"metadata": null, "spec": {"timeouts": {"request": "99999h99999h"}}}`))
	f.Fuzz(func(t *testing.T, kind string, manifest []byte) {
		r, err := Decode(kind, manifest)
		if (r == nil) != (err != nil) {
			t.Fatalf("resource %v beside error %v, want one of the two", r, err)
		}
		if r != nil && r.Kind() != kind {
			t.Errorf("kind %s, want %s", r.Kind(), kind)
		}
	})
}

func checkFault(t *testing.T, f Fault, text []byte, last bool) {
	t.Helper()
	if f.Message == "" || !utf8.ValidString(f.String()) || strings.ContainsFunc(f.String(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("fault %q is no printable line", f)
	}
	if len(f.Message) > 1000 {
		t.Errorf("message of %d bytes: %.200s", len(f.Message), f.Message)
	}
	lines := bytes.Count(text, []byte("\n")) + bytes.Count(text, []byte("\r")) + bytes.Count(text, []byte("\u0085")) +
		bytes.Count(text, []byte("\u2028")) + bytes.Count(text, []byte("\u2029")) + 1
	if !last && (f.Line < 1 || f.Line > lines || f.Column < 1) {
		t.Errorf("fault %s is at no place of a text of %d lines", f, lines)
	}
}
