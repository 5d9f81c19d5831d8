package rest

import (
	"net/http"
	"strings"
)

// format is how the messages of a stream stand in one HTTP body.
type format struct {
	contentType string // "" is the messages' own
	// What goes before the first message, before the others, and behind each.
	first, next, behind string
	// What an error at the end is put between; the first one when no message went before.
	// Empty when the format has no place for it.
	failFirst, failNext, failBehind string
	// What ends a stream, with no message and with some. With an error it is failBehind.
	endEmpty, end string
	// keepAlive is what says nothing and keeps the connection in use; "" when there is
	// no such thing.
	keepAlive string
}

var (
	// lines is one JSON document a line, NDJSON.
	lines = &format{
		contentType: "application/x-ndjson",
		behind:      "\n",
		failFirst:   `{"error":`, failNext: `{"error":`, failBehind: "}\n",
	}
	// events are server-sent events. A page that uses EventSource closes it on "end":
	// without that event it would take every end for a lost connection, and call again.
	events = &format{
		contentType: "text/event-stream",
		first:       "data: ", next: "data: ", behind: "\n\n",
		failFirst: "event: error\ndata: ", failNext: "event: error\ndata: ", failBehind: "\n\n",
		endEmpty: "event: end\ndata: {}\n\n", end: "event: end\ndata: {}\n\n",
		keepAlive: ":\n\n",
	}
	// array is one JSON document, which grows.
	array = &format{
		contentType: "application/json",
		first:       "[", next: ",\n",
		failFirst: `[{"error":`, failNext: ",\n" + `{"error":`, failBehind: "}]\n",
		endEmpty: "[]\n", end: "]\n",
	}
	// raw is what the messages of type google.api.HttpBody contain, end to end.
	raw = &format{}
)

// formatOf is how a request wants a stream: what Accept likes best, the first named of
// what it likes as well, and lines when it names none of them.
func formatOf(h http.Header) *format {
	best, most := lines, 0
	for _, line := range h["Accept"] {
		for element := range strings.SplitSeq(line, ",") {
			name, q, ok := weighted(element)
			if f := formatNamed(name); ok && f != nil && q > most {
				best, most = f, q
			}
		}
	}
	return best
}

func formatNamed(mediaType string) *format {
	mediaType = strings.ToLower(mediaType)
	switch {
	case isLines(mediaType):
		return lines
	case mediaType == events.contentType:
		return events
	case mediaType == array.contentType:
		return array
	}
	return nil
}
