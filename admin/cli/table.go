package cli

import (
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// table is rows of cells under a header, the columns as wide as they must be.
type table struct {
	rows [][]string
}

func newTable(header ...string) *table { return &table{rows: [][]string{header}} }

func (t *table) add(cells ...string) {
	for i, cell := range cells {
		if cell = printable(cell); cell == "" {
			cell = "-"
		}
		cells[i] = cell
	}
	t.rows = append(t.rows, cells)
}

// write indents each row.
func (t *table) write(w io.Writer, indent string) error {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range t.rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		if _, err := io.WriteString(w, indent+strings.TrimRight(line.String(), " ")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// printable is s on one line and without what moves a terminal's cursor: reasons
// and names of clients were written by others.
func printable(s string) string {
	for _, r := range s {
		if !strconv.IsPrint(r) {
			quoted := strconv.Quote(s)
			return quoted[1 : len(quoted)-1]
		}
	}
	return s
}
