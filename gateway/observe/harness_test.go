package observe

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Two ways to ask for metrics.
const (
	acceptText     = "text/plain; version=0.0.4"
	acceptProtobuf = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
)

// serve answers scrapes of m over HTTP.
func serve(t *testing.T, m *Metrics) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(m.Handler())
	t.Cleanup(server.Close)
	return server
}

func get(t *testing.T, server *httptest.Server, accept string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("scrape answered %s", resp.Status)
	}
	return resp
}

// scrapeText is the page as a person reads it.
func scrapeText(t *testing.T, m *Metrics) string {
	t.Helper()
	body, err := io.ReadAll(get(t, serve(t, m), acceptText).Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// scrape is the page as a scraper decodes it, by name.
func scrape(t *testing.T, m *Metrics, accept string) map[string]*dto.MetricFamily {
	t.Helper()
	resp := get(t, serve(t, m), accept)
	decoder := expfmt.NewDecoder(resp.Body, expfmt.ResponseFormat(resp.Header))
	families := make(map[string]*dto.MetricFamily)
	for {
		var f dto.MetricFamily
		err := decoder.Decode(&f)
		if errors.Is(err, io.EOF) {
			return families
		}
		if err != nil {
			t.Fatal(err)
		}
		families[f.GetName()] = &f
	}
}

// counts unrolls spans and deltas into a count per bucket index.
func counts(h *dto.Histogram) map[int]int64 {
	all := make(map[int]int64)
	index, count, at := 0, int64(0), 0
	for _, span := range h.GetPositiveSpan() {
		index += int(span.GetOffset())
		for range span.GetLength() {
			count += h.GetPositiveDelta()[at]
			if count != 0 {
				all[index] = count
			}
			index++
			at++
		}
	}
	return all
}
