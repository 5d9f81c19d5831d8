package store

import (
	"fmt"
	"strings"
)

const (
	maxPathLen       = 1024
	maxOriginLen     = 253
	maxQueryValueLen = 1024
)

// checkPathLen is for the path of a match, a regular expression too.
func checkPathLen(s string) string {
	if len(s) > maxPathLen {
		return fmt.Sprintf("%d bytes, limit %d", len(s), maxPathLen)
	}
	return ""
}

// checkPath is for the path of a URL in normal form, as the Gateway API has it: what
// servers understand in different ways is not in it.
func checkPath(s string) string {
	switch lower := strings.ToLower(s); {
	case checkPathLen(s) != "":
		return checkPathLen(s)
	case !strings.HasPrefix(s, "/"):
		return `want a path that begins with "/"`
	case strings.Contains(s, "//"):
		return `want no "//"`
	case strings.Contains(s+"/", "/./"), strings.Contains(s+"/", "/../"):
		return `want no "." or ".." as a segment`
	case strings.Contains(lower, "%2f"):
		return `want no escaped "/"`
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			i += 2
		case s[i] == '%':
			return `want two hexadecimal digits after "%"`
		case !isAlnum(s[i]) && strings.IndexByte("-/._~!$&'()*+,;=:@", s[i]) < 0:
			return "want letters, digits, -._~!$&'()*+,;=:@ and the rest escaped"
		}
	}
	return ""
}

func isHex(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }

// checkPreciseHostname is for a name without a wildcard.
func checkPreciseHostname(s string) string {
	switch {
	case s == "":
		return "want a hostname"
	case strings.HasPrefix(s, "*"):
		return "want a hostname without a wildcard"
	}
	return checkHostname(s)
}

// checkOrigin is for what a browser calls an origin, with or without wildcards.
func checkOrigin(s string) string {
	if len(s) > maxOriginLen {
		return fmt.Sprintf("%d bytes, limit %d", len(s), maxOriginLen)
	}
	scheme, rest, _ := strings.Cut(s, "://")
	host, port, hasPort := strings.Cut(rest, ":")
	switch {
	case s == "*":
		return ""
	case scheme != "http" && scheme != "https":
		return `want an origin like "https://shop.example.com", or "*"`
	case hasPort && (len(port) > 5 || strings.Trim(port, "0123456789") != "" || port == ""):
		return "want a port of up to five digits"
	case host == "*":
		return ""
	}
	for label := range strings.SplitSeq(strings.TrimPrefix(host, "*."), ".") {
		if strings.Trim(label, "-") == "" || !isLabel(strings.Trim(label, "-"), isAlnum) {
			return `want a hostname after "://", which may begin with "*."`
		}
	}
	return ""
}

// checkQueryName is for the name of a parameter in a URL's query, as the Gateway API
// has it.
func checkQueryName(s string) string {
	if s == "" {
		return "want the name of a parameter"
	}
	return checkHeaderName(s)
}

// checkQueryValue is for the value of such a parameter, not escaped.
func checkQueryValue(s string) string {
	switch {
	case s == "":
		return "want a value"
	case len(s) > maxQueryValueLen:
		return fmt.Sprintf("%d bytes, limit %d", len(s), maxQueryValueLen)
	}
	return checkControls(s)
}
