package rest

import (
	"net/http"
	"strconv"
	"strings"
)

// gzipFrom is the size of a body from which compressing it pays, bytes: a smaller one
// fits a packet either way.
const gzipFrom = 512

var (
	codedGzip       = []string{encodingGzip}
	variesEncoding  = "Accept-Encoding"
	variesStreaming = "Accept, Accept-Encoding"
)

// acceptsGzip tells whether a request prefers gzip to no encoding, or likes both as well
// (RFC 9110, section 12.5.3). A request that does not say gets none.
func acceptsGzip(h http.Header) bool {
	lines := h["Accept-Encoding"]
	if len(lines) == 0 {
		return false
	}
	gzip, identity, others := -1, -1, -1 // in thousandths; -1 is not mentioned
	for _, line := range lines {
		for element := range strings.SplitSeq(line, ",") {
			coding, q, ok := weighted(element)
			switch {
			case !ok:
			case strings.EqualFold(coding, "gzip"), strings.EqualFold(coding, "x-gzip"):
				gzip = max(gzip, q)
			case strings.EqualFold(coding, "identity"):
				identity = q
			case coding == "*":
				others = q
			}
		}
	}
	if gzip < 0 {
		gzip = others
	}
	return gzip > 0 && gzip >= identity
}

// weighted takes an element of Accept or Accept-Encoding apart: what is named, and its
// weight in thousandths, 1000 when it has none. It is not ok when it is malformed.
func weighted(element string) (name string, q int, ok bool) {
	name, parameters, _ := strings.Cut(element, ";")
	name, q = strings.Trim(name, " \t"), 1000
	for parameter := range strings.SplitSeq(parameters, ";") {
		key, value, _ := strings.Cut(strings.Trim(parameter, " \t"), "=")
		if strings.EqualFold(key, "q") {
			if q, ok = weight(value); !ok {
				return "", 0, false
			}
		}
	}
	return name, q, name != ""
}

// weight reads a qvalue: 0 to 1 with up to three digits behind the point.
func weight(s string) (thousandths int, ok bool) {
	if len(s) > len("0.000") || strings.Trim(s, "0123456789.") != "" {
		return 0, false
	}
	q, err := strconv.ParseFloat(s, 64)
	if err != nil || q > 1 {
		return 0, false
	}
	return int(q*1000 + 0.5), true
}

// isCompressible tells the content types that compressing makes smaller: text, and not
// pictures or archives.
func isCompressible(contentType string) bool {
	base, _, _ := strings.Cut(contentType, ";")
	base = strings.ToLower(strings.TrimSpace(base))
	switch base {
	case "application/json", "application/xml", "application/javascript", "application/x-ndjson", "image/svg+xml":
		return true
	}
	return strings.HasPrefix(base, "text/") || strings.HasSuffix(base, "+json") || strings.HasSuffix(base, "+xml")
}
