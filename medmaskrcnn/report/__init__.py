"""Drawing and describing results: previews, the HTML report, tables of instances, colours and units."""
