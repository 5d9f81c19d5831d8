package cli

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// wantedValues says, by the type of a flag, what its value may be: the parsers of
// the standard library speak to programmers.
var wantedValues = map[string]string{
	"uint32":   "a whole number from 0 to 4294967295",
	"uint64":   "a whole number from 0 to 18446744073709551615",
	"duration": "a time such as 10s or 2m",
	"bool":     "true or false",
}

// flagError puts a flag that cannot be read into words.
func flagError(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		if want, ok := wantedValues[invalid.GetFlag().Value.Type()]; ok {
			return usageErrorf("--%s %q: want %s; see %s --help", invalid.GetFlag().Name, invalid.GetValue(), want, cmd.CommandPath())
		}
	}
	return usageErrorf("%w; see %s --help", err, cmd.CommandPath())
}
