package cli

import "github.com/spf13/cobra"

// siblingCommands returns the commands of the other packages of this module (node, demo,
// shop). They carry their own flags and read their own environment; see addSibling.
func siblingCommands() []*cobra.Command {
	return nil
}
