set terminal svg size 748,420 dynamic font 'sans,12' background 'white'
set output 'widths.svg'
set title 'opt-tiny, 0 % sparsity, calibrated on wikitext2.calib.txt: widths of budget-model 3' noenhanced
set style data histograms
set style histogram rowstacked
set style fill solid 0.9
set boxwidth 0.85
set yrange [0:100]
set ylabel 'channels, %'
set xtics rotate by 60 right noenhanced font ',10'
set key outside right noenhanced
$data << EOD
"0.self_attn.k_proj" 0 0 31.7708 68.2292 0
"0.self_attn.v_proj" 0 0 95.8333 4.16667 0
"0.self_attn.q_proj" 25.5208 70.3125 4.16667 0 0
"0.self_attn.out_proj" 0 19.2708 80.7292 0 0
"0.fc1" 0 0.911458 99.0885 0 0
"0.fc2" 0 95.3125 4.6875 0 0
"1.self_attn.k_proj" 100 0 0 0 0
"1.self_attn.v_proj" 98.9583 1.04167 0 0 0
"1.self_attn.q_proj" 21.875 54.6875 23.4375 0 0
"1.self_attn.out_proj" 100 0 0 0 0
"1.fc1" 0.520833 96.7448 2.73438 0 0
"1.fc2" 9.89583 89.5833 0.520833 0 0
"2.self_attn.k_proj" 0 84.375 15.625 0 0
"2.self_attn.v_proj" 0 98.4375 1.5625 0 0
"2.self_attn.q_proj" 70.3125 29.6875 0 0 0
"2.self_attn.out_proj" 0.520833 98.9583 0.520833 0 0
"2.fc1" 0.260417 98.1771 1.5625 0 0
"2.fc2" 49.4792 50.5208 0 0 0
"3.self_attn.k_proj" 40.625 59.375 0 0 0
"3.self_attn.v_proj" 0 98.4375 1.5625 0 0
"3.self_attn.q_proj" 68.75 31.25 0 0 0
"3.self_attn.out_proj" 2.08333 94.7917 3.125 0 0
"3.fc1" 0.260417 90.8854 8.85417 0 0
"3.fc2" 44.2708 55.2083 0.520833 0 0
EOD
plot $data using 2:xtic(1) lc rgb '#313695' title '2 bits', $data using 3 lc rgb '#74add1' title '3 bits', $data using 4 lc rgb '#fee090' title '4 bits', $data using 5 lc rgb '#f46d43' title '6 bits', $data using 6 lc rgb '#a50026' title '8 bits'
