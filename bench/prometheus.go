package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// series is one line of a Prometheus page.
type series struct {
	name   string
	labels map[string]string
	value  float64
}

// page is what a Prometheus endpoint answered at one moment.
type page []series

// parsePage reads the text exposition format. Comments and timestamps are
// skipped.
func parsePage(text []byte) (page, error) {
	var p page
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := parseSeries(line)
		if err != nil {
			return nil, fmt.Errorf("metrics line %q: %w", line, err)
		}
		p = append(p, s)
	}
	return p, lines.Err()
}

func parseSeries(line string) (series, error) {
	end := strings.IndexAny(line, "{ \t")
	if end <= 0 {
		return series{}, fmt.Errorf("want a name and a value")
	}
	s := series{name: line[:end]}
	rest := line[end:]
	if rest[0] == '{' {
		var err error
		if s.labels, rest, err = parseLabels(rest[1:]); err != nil {
			return series{}, err
		}
	}
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return series{}, fmt.Errorf("no value")
	}
	var err error
	s.value, err = strconv.ParseFloat(fields[0], 64)
	return s, err
}

// parseLabels reads name="value" pairs up to the closing brace, and returns
// what follows it. A value may hold any character, with \\, \" and \n escaped.
func parseLabels(text string) (labels map[string]string, rest string, err error) {
	labels = map[string]string{}
	for {
		text = strings.TrimLeft(text, ", \t")
		if after, ok := strings.CutPrefix(text, "}"); ok {
			return labels, after, nil
		}
		name, after, ok := strings.Cut(text, `="`)
		if !ok {
			return nil, "", fmt.Errorf("label %q: want name=\"value\"", text)
		}
		value, after, ok := cutQuoted(after)
		if !ok {
			return nil, "", fmt.Errorf("label %s: value has no end", name)
		}
		labels[name], text = value, after
	}
}

// cutQuoted returns the text before the next quote that is not escaped, with
// its escapes resolved, and what follows that quote.
func cutQuoted(text string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return b.String(), text[i+1:], true
		case c == '\\' && i+1 < len(text):
			i++
			if text[i] == 'n' {
				b.WriteByte('\n')
			} else {
				b.WriteByte(text[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// sum adds up the series of that name whose labels hold all of match, which
// lists label names and values in turn.
func (p page) sum(name string, match ...string) float64 {
	var sum float64
	for _, s := range p {
		if s.name == name && s.matches(match) {
			sum += s.value
		}
	}
	return sum
}

func (s series) matches(match []string) bool {
	for i := 0; i+1 < len(match); i += 2 {
		if s.labels[match[i]] != match[i+1] {
			return false
		}
	}
	return true
}

// adminClient asks a proxy's own admin port. No keep-alive: an idle connection
// there would be memory of the proxy that is not its clients'.
var adminClient = &http.Client{
	Timeout:   30 * time.Second, // of a profile or a page with 10,000 routes on one busy core
	Transport: &http.Transport{DisableKeepAlives: true},
}

// get returns the body of a 200 answer.
func get(url string) ([]byte, error) {
	resp, err := adminClient.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return body, nil
}
