package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// clockFormat is a time as a person reads it, in the person's zone.
const clockFormat = "2006-01-02 15:04:05"

// at is a time of the server in the zone of the user, "-" when there is none.
func (p *program) clock(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().In(p.Now().Location()).Format(clockFormat)
}

// ago is how long ago a time was, in its largest unit.
func (p *program) ago(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	passed := p.Now().Sub(t.AsTime())
	if passed < 0 { // the clocks of two machines
		passed = 0
	}
	return age(passed) + " ago"
}

func age(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/day)
}

// parseMoment reads a time in the past as a person says it: RFC 3339, a date with
// a time of day, a time of today, or how long ago.
func (p *program) parseMoment(flag, s string) (time.Time, error) {
	now := p.Now()
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, format := range []string{clockFormat, "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if t, err := time.ParseInLocation(format, s, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, format := range []string{"15:04:05", "15:04"} {
		if t, err := time.ParseInLocation(format, s, now.Location()); err == nil {
			year, month, day := now.Date()
			return time.Date(year, month, day, t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	if d, err := parseAge(strings.TrimSuffix(strings.TrimSpace(strings.TrimSuffix(s, "ago")), " ")); err == nil {
		return now.Add(-d), nil
	}
	return time.Time{}, usageErrorf(`%s %q: want a time such as 2026-01-31T15:04:05Z, "2026-01-31 15:04", 15:04 or 10m (ago)`, flag, s)
}

// parseAge is time.ParseDuration that knows days, too, and takes nothing negative.
func parseAge(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	d, err := time.ParseDuration(s)
	if err == nil && d < 0 {
		return 0, fmt.Errorf("duration %q: negative", s)
	}
	return d, err
}
